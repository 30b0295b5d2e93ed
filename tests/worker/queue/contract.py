"""What Doorbells promises, as tests that every adapter runs: subclass `DoorbellsContract` and give it two processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from worker.db.session import Doorbell
from worker.queue import pulls
from worker.queue.lanes import Lane, lanes_of
from worker.queue.port import Delivery, Doorbells, Listener

WITHIN_S = 30


class Ear:
    """A worker with `slots` slots that listens to `lanes` and keeps what it hears."""

    def __init__(self, doorbells: Doorbells, lanes: Sequence[Lane], slots: int = 1000) -> None:
        self.slots = slots
        self.busy = 0
        self.heard: list[Delivery] = []
        self.listener: Listener = doorbells.listen(lanes, lambda lane: self.slots - self.busy)
        self._task = asyncio.create_task(self._listen())

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not done():
                await asyncio.sleep(0.005)

    async def ids(self, count: int) -> list[UUID]:
        await self.until(lambda: len(self.heard) >= count)
        return [delivery.job_id for delivery in self.heard]

    def free(self) -> None:
        self.busy = 0
        self.listener.wake()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.listener.close()

    async def _listen(self) -> None:
        while True:
            for delivery in await self.listener.take():
                self.busy += 1
                self.heard.append(delivery)


def bell(queue: str = "default", priority: int = 5, rescue: bool = False) -> Doorbell:
    return Doorbell(uuid4(), queue, priority, rescue)


class DoorbellsContract:
    """`here` and `there` are the doorbells of two processes, started and connected; `ears` makes an Ear that ends."""

    async def test_a_bell_is_heard_in_another_process(self, here: Doorbells, there: Doorbells, ears: Any):
        ear = ears(there)
        rung = bell()
        await here.ring([rung])
        assert await ear.ids(1) == [rung.job_id]
        assert ear.heard[0].lane == Lane("default", "normal")

    async def test_what_was_rung_before_anybody_listened_is_heard(
        self, here: Doorbells, there: Doorbells, ears: Any
    ):
        rung = [bell() for _ in range(50)]
        await here.ring(rung)
        assert set(await ears(there).ids(50)) == {b.job_id for b in rung}

    async def test_each_bell_is_heard_by_one_of_many(self, here: Doorbells, there: Doorbells, ears: Any):
        one, two = ears(here), ears(there)
        rung = [bell() for _ in range(200)]
        await here.ring(rung)
        await one.until(lambda: len(one.heard) + len(two.heard) >= 200)
        for delivery in [*one.heard, *two.heard]:
            await delivery.ack()
        await asyncio.sleep(0.1)
        heard = [delivery.job_id for delivery in [*one.heard, *two.heard]]
        assert sorted(heard) == sorted(b.job_id for b in rung)

    async def test_only_ones_own_queues_and_lanes_are_heard(
        self, here: Doorbells, there: Doorbells, ears: Any
    ):
        ear = ears(there, lanes_of("mail", (0, 3)))
        high, rescued = bell("mail", 3), bell("mail", 9, rescue=True)
        await here.ring([bell("default"), bell("mail", 4), bell("mail", 7), high, rescued])
        assert set(await ear.ids(2)) == {high.job_id, rescued.job_id}
        assert [delivery.lane.rescue for delivery in ear.heard] in ([True, False], [False, True])

    async def test_urgent_bells_go_first(
        self, here: Doorbells, there: Doorbells, ears: Any, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(pulls, "SETTLE_S", 1.0)  # a busy server may take its time for one of the lanes
        ear = ears(there, slots=0)
        rung = [bell(priority=p) for p in (9, 5, 0) for _ in range(3)]
        rescued = bell(rescue=True)
        await here.ring([*rung, rescued])
        await asyncio.sleep(0.2)
        ear.slots = 1
        ear.free()
        for count in range(1, 11):
            await ear.ids(count)
            await ear.heard[-1].ack()
            await asyncio.sleep(0.02)
            ear.free()
        lanes = [delivery.lane.name for delivery in ear.heard]
        assert lanes == ["rescue"] + ["high"] * 3 + ["normal"] * 3 + ["low"] * 3

    async def test_nothing_is_handed_out_without_a_free_slot(
        self, here: Doorbells, there: Doorbells, ears: Any
    ):
        ear = ears(there, slots=2)
        await here.ring([bell() for _ in range(10)])
        await ear.ids(2)
        await asyncio.sleep(0.3)
        assert len(ear.heard) == 2
        ear.free()
        assert len(await ear.ids(4)) == 4

    async def test_a_busy_worker_leaves_the_bells_to_an_idle_one(
        self, here: Doorbells, there: Doorbells, ears: Any
    ):
        busy = ears(here, slots=1)
        await here.ring([bell()])
        await busy.ids(1)
        idle = ears(there)
        await here.ring([bell() for _ in range(30)])
        assert len(await idle.ids(30)) == 30

    async def test_a_nak_brings_it_back_after_its_delay(self, here: Doorbells, there: Doorbells, ears: Any):
        ear = ears(there)
        rung = bell()
        await here.ring([rung])
        await ear.ids(1)
        before = asyncio.get_running_loop().time()
        await ear.heard[0].nak(0.5)
        assert await ear.ids(2) == [rung.job_id, rung.job_id]
        assert asyncio.get_running_loop().time() - before >= 0.45

    async def test_an_acked_bell_does_not_come_again(self, here: Doorbells, there: Doorbells, ears: Any):
        ear = ears(there)
        await here.ring([bell()])
        await ear.ids(1)
        await ear.heard[0].ack()
        await ear.close()
        last = bell()
        await here.ring([last])
        assert await ears(there).ids(1) == [last.job_id]

    async def test_what_a_listener_holds_is_given_back_when_it_closes(
        self, here: Doorbells, there: Doorbells, ears: Any
    ):
        first = ears(here, slots=1)
        await here.ring([bell() for _ in range(20)])
        await first.ids(1)
        await first.close()
        assert len(await ears(there).ids(19)) == 19

    async def test_the_same_id_may_be_rung_twice(self, here: Doorbells, there: Doorbells, ears: Any):
        ear = ears(there)
        rung = bell()
        await here.ring([rung])
        await (await _first(ear)).ack()
        await here.ring([rung])
        assert await ear.ids(2) == [rung.job_id, rung.job_id]

    async def test_a_signal_reaches_its_worker_alone(self, here: Doorbells, there: Doorbells):
        mine, other = uuid4(), uuid4()
        got: list[dict[str, Any]] = []
        not_for_me: list[dict[str, Any]] = []
        there.on_signal(mine, _keeper(got))
        there.on_signal(other, _keeper(not_for_me))
        async with asyncio.timeout(WITHIN_S):
            while not got:  # a subscription may take a moment
                await here.signal(mine, {"cancel": "x", "epoch": 3})
                await asyncio.sleep(0.02)
        assert got[0] == {"cancel": "x", "epoch": 3}
        assert not_for_me == []

    async def test_a_handler_that_fails_stops_nothing(self, here: Doorbells, there: Doorbells):
        worker, calls = uuid4(), []

        async def fails(message: dict[str, Any]) -> None:
            calls.append(message)
            raise RuntimeError("a bug in a handler")

        there.on_signal(worker, fails)
        async with asyncio.timeout(WITHIN_S):
            while len(calls) < 2:
                await here.signal(worker, {"drain": True})
                await asyncio.sleep(0.02)

    async def test_stats_tell_what_waits(self, here: Doorbells, there: Doorbells, ears: Any):
        ears(there, slots=0)
        await here.ring([bell(priority=8) for _ in range(3)])
        async with asyncio.timeout(WITHIN_S):
            while (await _pending(here))[1].get(("default", "low")) != 3:
                await asyncio.sleep(0.02)
        assert (await _pending(here))[0] is True


async def _pending(doorbells: Doorbells) -> tuple[bool, dict[tuple[str, str], int]]:
    found = await doorbells.stats()
    return found["connected"], {(lane["queue"], lane["lane"]): lane["pending"] for lane in found["consumers"]}


async def _first(ear: Ear) -> Delivery:
    await ear.ids(1)
    return ear.heard[0]


def _keeper(kept: list[dict[str, Any]]) -> Any:
    async def keep(message: dict[str, Any]) -> None:
        kept.append(message)

    return keep


@pytest.fixture
async def ears():
    made: list[Ear] = []

    def make(doorbells: Doorbells, lanes: Sequence[Lane] | None = None, slots: int = 1000) -> Ear:
        made.append(Ear(doorbells, lanes_of("default") if lanes is None else lanes, slots))
        return made[-1]

    yield make
    for ear in made:
        if not ear._task.done():
            await ear.close()
