"""How many doorbells a worker asks for, holds and gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from worker.queue.lanes import Lane
from worker.queue.pulls import HOLD_S, LEAST, MOST, LanePull

LANE = Lane("default", "normal")


@dataclass
class Bell:
    arrived: float = 0.0
    lane: Lane = LANE
    job_id: UUID = field(default_factory=uuid4)

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float = 0.0) -> None: ...


def filled(count: int, at: float = 0.0) -> LanePull:
    pull = LanePull(LANE)
    for _ in range(count):
        pull.received(Bell(at))
    return pull


def test_a_request_is_never_small_because_small_ones_are_dear():
    assert LanePull(LANE).request(1, 0.0).batch == LEAST


def test_there_is_one_request_at_a_time():
    pull = LanePull(LANE)
    assert pull.request(5, 100.0)
    assert pull.request(5, 100.1) is None
    pull.ended()
    assert pull.request(5, 100.2)


def test_a_request_that_the_server_forgot_is_made_again():
    pull = LanePull(LANE)
    assert pull.request(5, 100.0)
    assert pull.request(5, 106.0) is None
    assert pull.request(5, 108.0)


def test_a_full_worker_asks_for_nothing_and_gives_back_what_still_comes():
    pull = filled(3, at=50.0)
    assert pull.request(0, 50.0) is None
    assert len(pull.surplus(0, 50.0)) == 3


def test_short_jobs_let_a_worker_read_ahead():
    pull = filled(500, at=50.0)
    for _ in range(400):
        pull.take(50.1)
    assert pull.need(0, 50.2) == MOST
    assert pull.surplus(0, 50.2) == []
    assert pull.need(0, 53.0) == 0


def test_nothing_is_held_for_longer_than_a_second_while_no_slot_is_free():
    pull = filled(3, at=50.0)
    pull.take(50.1)
    pull.take(50.1)
    assert pull.surplus(0, 50.2) == []
    assert len(pull.surplus(0, 50.0 + HOLD_S + 0.1)) == 1


def test_a_lane_that_was_just_asked_is_waited_for_before_a_lower_one_goes():
    pull = LanePull(LANE)
    assert pull.settled(10.0)
    pull.request(1, 10.0)
    assert not pull.settled(10.001)
    assert pull.settled(10.1)
