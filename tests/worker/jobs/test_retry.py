"""When a failed job runs again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.retry import LONGEST_WAIT_S, Decision, Discard, Retry, RetryPolicy

attempts = st.integers(1, 5000)
chances = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    lambda base, factor: RetryPolicy(base_s=base, cap_s=min(base * factor, LONGEST_WAIT_S)),
    st.floats(0.001, 1000),
    st.floats(1, 10_000),
)


@given(policies, attempts, chances)
def test_a_wait_is_never_negative_and_never_above_the_cap(
    policy: RetryPolicy, attempt: int, chance: float
) -> None:
    assert 0 <= policy.delay(attempt, chance) <= policy.cap_s


@given(policies, st.integers(1, 60), chances)
def test_the_ceiling_doubles_until_the_cap(policy: RetryPolicy, attempt: int, chance: float) -> None:
    expected = min(policy.cap_s, 2 * policy.ceiling(attempt))
    assert policy.ceiling(attempt + 1) == pytest.approx(expected)


@given(policies, attempts, chances, chances)
def test_the_jitter_is_full(policy: RetryPolicy, attempt: int, one: float, two: float) -> None:
    ceiling = policy.ceiling(attempt)
    assert policy.delay(attempt, 0) == 0
    assert (policy.delay(attempt, one) <= policy.delay(attempt, two)) or one > two
    assert policy.delay(attempt, 0.5) == pytest.approx(ceiling / 2)


@given(st.integers(0, 100), st.integers(1, 200), chances)
def test_n_retries_are_n_plus_one_runs(max_retries: int, attempt: int, chance: float) -> None:
    decision = RetryPolicy().decide(ValueError(), attempt, max_retries, chance)
    assert (decision.kind == "retry") == (attempt <= max_retries)


def test_three_retries_by_hand() -> None:
    policy = RetryPolicy()
    assert [policy.ceiling(n) for n in (1, 2, 3, 4, 9, 10, 1000)] == [2, 4, 8, 16, 512, 600, 600]


@given(attempts, chances)
def test_discard_fails_whatever_the_policy_says(attempt: int, chance: float) -> None:
    assert RetryPolicy().decide(Discard("no use"), attempt, 10_000, chance) == Decision("fail")


def test_an_exception_that_the_policy_names_is_not_tried_again() -> None:
    policy = RetryPolicy(discard_on=(LookupError,))
    assert policy.decide(KeyError("x"), 1, 3, 0.5).kind == "fail"
    assert policy.decide(ValueError("x"), 1, 3, 0.5).kind == "retry"


@given(st.floats(0, 1000), chances)
def test_retry_after_is_taken_at_its_word_while_retries_are_left(after: float, chance: float) -> None:
    assert RetryPolicy().decide(Retry(after=after), 1, 1, chance) == Decision("retry", after)
    assert RetryPolicy().decide(Retry(after=after), 2, 1, chance) == Decision("fail")


def test_retry_without_a_time_waits_as_the_policy_says() -> None:
    assert RetryPolicy().decide(Retry(), 2, 3, 0.5) == Decision("retry", 2.0)


def test_retry_takes_a_timedelta_and_bounds_what_makes_no_sense() -> None:
    assert Retry(after=timedelta(minutes=2)).after_s == 120
    assert Retry(after=-5).after_s == 0
    assert Retry(after=1e12).after_s == LONGEST_WAIT_S
    with pytest.raises(ValueError, match="number of seconds"):
        Retry(after=float("nan"))


@pytest.mark.parametrize(
    "wrong", [{"max_retries": -1}, {"max_retries": True}, {"base_s": 0}, {"base_s": 10, "cap_s": 5}]
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|waits"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
