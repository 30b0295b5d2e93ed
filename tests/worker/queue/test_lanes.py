"""Which doorbells travel together, and who is looked at first."""

from __future__ import annotations

import random
from collections import Counter
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.db.session import Doorbell
from worker.queue.lanes import Lane, QueueChoice, in_turn, lane_of, lanes_of, parse_priorities, parse_queues


@given(st.integers(0, 9), st.booleans())
def test_every_doorbell_has_a_lane_that_a_worker_for_its_priority_hears(priority: int, rescue: bool):
    lane = lane_of(Doorbell(uuid4(), "mail", priority, rescue))
    assert lane in lanes_of("mail", (priority, priority))
    assert lane.rescue == rescue


def test_the_bands_are_rescue_then_0_to_3_then_4_to_6_then_7_to_9():
    lanes = [lane_of(Doorbell(uuid4(), "q", p)).name for p in range(10)]
    assert lanes == ["high"] * 4 + ["normal"] * 3 + ["low"] * 3
    assert lanes_of("q") == [Lane("q", name) for name in ("rescue", "high", "normal", "low")]


def test_queues_without_weights_go_in_the_given_order_always():
    choices = parse_queues("mail, default,bulk")
    assert [in_turn(choices, random.random) for _ in range(3)] == [["mail", "default", "bulk"]] * 3


def test_weights_decide_how_often_a_queue_goes_first():
    choices, draw = parse_queues("mail:3,bulk:1"), random.Random(7)
    first = Counter(in_turn(choices, draw.random)[0] for _ in range(4000))
    assert 0.7 < first["mail"] / 4000 < 0.8


@pytest.mark.parametrize("text", ["", "a,,a", "Mail", "a:0", "a:x", "a b", "a:1:2", "a\nb"])
def test_a_queue_list_that_makes_no_sense_is_refused(text: str):
    with pytest.raises(ValueError, match="queue"):
        parse_queues(text)


@pytest.mark.parametrize(("text", "range_"), [("0-9", (0, 9)), ("3", (3, 3)), ("4-6", (4, 6))])
def test_priorities_are_a_range(text: str, range_: tuple[int, int]):
    assert parse_priorities(text) == range_


@pytest.mark.parametrize("text", ["", "9-0", "a", "0-10", "-3", "1-", "1-2-3"])
def test_priorities_that_are_no_range_are_refused(text: str):
    with pytest.raises(ValueError, match="--priorities"):
        parse_priorities(text)


def test_one_choice_is_itself():
    assert in_turn([QueueChoice("a", 5)], random.random) == ["a"]
