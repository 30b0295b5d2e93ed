"""What `@job` makes of a function, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from typing import Any

import pytest

from worker import JobContext, RetryPolicy, Secret, broker, cron, job
from worker.errors import BadJobDefinition
from worker.jobs.cron import checked_schedules


@job
async def bare(a: int, b: int = 1) -> int:
    """Adds.

    Slowly.
    """
    return a + b


@job(name="send_email", queue="mail", retry=3, timeout=300, on="doc.*", on_lost="fail")
def full(ctx: JobContext, to: str) -> str:
    return to


async def test_a_job_is_still_the_function_it_was() -> None:
    assert await bare(1, b=2) == 3
    assert bare.__name__ == "bare"
    assert bare.__doc__ == "Adds.\n\n    Slowly.\n    "
    assert bare.name == "bare"


def test_the_options_are_kept() -> None:
    made = full.definition
    assert (made.name, made.queue, made.max_retries, made.timeout_s) == ("send_email", "mail", 3, 300.0)
    assert (made.on_events, made.on_lost, made.context_parameter) == (("doc.*",), "fail", "ctx")
    assert made.is_async is False
    assert made.module == __name__


def test_what_is_not_said_is_left_to_the_settings() -> None:
    made = bare.definition
    assert (made.queue, made.max_retries, made.timeout_s, made.isolation) == ("default", None, None, "")
    row = made.catalogue_row(max_retries=7, timeout_s=9)
    assert (row["max_retries"], row["timeout_s"]) == (7, 9)


def test_the_broker_handle_means_the_same() -> None:
    @broker.task(name="seed", retry=3, timeout=60, queue="mail", schedule=[{"cron": "0 9 * * *"}])
    async def seed(to: str, subject: str, body: str) -> None: ...

    made = seed.definition
    assert (made.name, made.max_retries, made.timeout_s, made.queue) == ("seed", 3, 60.0, "mail")
    assert made.schedules == ({"cron": "0 9 * * *", "time_zone": "UTC", "args": {}},)
    assert seed.task_name == "seed"

    @broker.task
    def plain() -> None: ...

    assert plain.name == "plain"


def test_a_call_becomes_the_json_that_is_stored() -> None:
    assert bare.encode(1) == {"a": 1}
    assert bare.encode(1, b=2) == {"a": 1, "b": 2}
    assert full.encode("ada") == {"to": "ada"}  # the context is not an argument

    @job
    def dated(when: date, key: Secret[str]) -> None: ...

    assert dated.encode(date(2026, 2, 3), Secret("hush")) == {"when": "2026-02-03", "key": "hush"}
    with pytest.raises(TypeError, match="takes 2 arguments, 3 were given"):
        bare.encode(1, 2, 3)
    with pytest.raises(TypeError, match="'a' twice"):
        bare.encode(1, a=2)


def test_options_of_one_enqueue_do_not_stick() -> None:
    urgent = bare.with_options(priority=0, queue="fast", tags=["a"])
    assert urgent.options == {"priority": 0, "queue": "fast", "tags": ("a",)}
    assert urgent.with_options(priority=1).options["queue"] == "fast"
    assert bare.options == {}


def refused(**options: Any) -> str:
    def task(a: int = 1) -> None: ...

    with pytest.raises(BadJobDefinition) as caught:
        job(**options)(task).definition.check()
    assert caught.value.facts["name"] == options.get("name", "task")
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "has space"}, "letters, digits"),
        ({"name": "a" * 201}, "at most 200"),
        ({"name": "x\n"}, "letters, digits"),
        ({"queue": "Mail"}, "queue='Mail'"),
        ({"queue": "$JS.>"}, "a queue is a word"),
        ({"queue": "mail\n"}, "a queue is a word"),
        ({"retry": -1}, "from 0 to 1000"),
        ({"retry": "3"}, "retry is '3'"),
        ({"retry": True}, "retry is True"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"isolation": "fiber"}, "isolation='fiber'"),
        ({"on_lost": "shrug"}, "on_lost='shrug'"),
        ({"on": "doc..created"}, "on='doc..created'"),
        ({"on": "doc.>.x"}, "on='doc.>.x'"),
        ({"schedule": [{"cron": "99 * * * *"}]}, "cron='99 * * * *' is not a cron expression"),
        ({"schedule": {"cron": "0 9 * * *"}}, "schedule is a list"),
        ({"schedule": [{"cron": "0 9 * * *", "time_zone": "Mars/Base"}]}, "IANA time zone"),
        ({"schedule": [{"cron": "0 9 * * *", "tz": "UTC"}]}, "schedule has 'tz'"),
        (
            {"schedule": [{"cron": "0 9 * * *", "args": {"b": 1}}]},
            "arguments do not fit: b: is not a parameter",
        ),
    ],
)
def test_a_mistake_names_the_job_and_the_problem(options: dict[str, Any], words: str) -> None:
    assert words in refused(**options)


def test_functions_that_cannot_be_jobs_are_refused() -> None:
    def star(*things: int) -> None: ...
    def positional(a: int, /) -> None: ...
    def generator() -> Any:
        yield 1

    def method(self: Any) -> None: ...
    def two(a: JobContext, b: JobContext) -> None: ...
    def odd(a: threading_lock) -> None: ...  # noqa: F821

    class Opaque: ...

    def opaque(a: Opaque) -> None: ...

    opaque.__annotations__ = {"a": Opaque}
    two.__annotations__ = {"a": JobContext, "b": JobContext}
    for function, words in (
        (star, r"takes \*things"),
        (positional, "'a' is positional-only"),
        (generator, "is a generator"),
        (method, "is a method"),
        (two, "a and b are both a JobContext"),
        (odd, "annotations cannot be read"),
        (opaque, "'a' cannot be filled from JSON"),
        (lambda: None, "letters, digits"),
    ):
        with pytest.raises(BadJobDefinition, match=words):
            job(function).definition.check()
    with pytest.raises(BadJobDefinition, match="only a function"):
        job(Opaque)
    with pytest.raises(BadJobDefinition, match="a job already"):
        job(bare)
    with pytest.raises(BadJobDefinition, match="by name"):
        job("send")  # type: ignore[call-overload]


def test_an_async_function_does_not_run_in_a_thread() -> None:
    async def waits() -> None: ...

    with pytest.raises(BadJobDefinition, match="event loop"):
        job(isolation="thread")(waits)


def test_a_policy_may_stand_for_the_number_of_retries() -> None:
    @job(retry=RetryPolicy(5, base_s=1, cap_s=10))
    def patient() -> None: ...

    assert patient.definition.max_retries == 5
    assert patient.definition.catalogue_row()["retry"] == {"base_s": 1, "cap_s": 10}


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        (cron("x", hour=9, minute=0), "0 9 * * *"),
        (cron("x", hour=9), "0 9 * * *"),
        (cron("x", minute=30), "30 * * * *"),
        (cron("x", weekday="mon"), "0 0 * * mon"),
        (cron("x"), "* * * * *"),
        (cron("x", "*/5 * * * *"), "*/5 * * * *"),
    ],
)
def test_cron_fills_in_what_is_finer_with_zeros(given: Any, expression: str) -> None:
    assert given.expression == expression
    assert checked_schedules([given.as_schedule()])[0]["cron"] == expression


def test_importing_worker_is_light_and_opens_nothing() -> None:
    code = "import sys, worker; print([m for m in ('sqlalchemy', 'taskiq', 'nats', 'pydantic', 'litestar') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
