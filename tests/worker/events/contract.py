"""What EventBusProtocol promises, as tests that every adapter runs: subclass `EventBusContract`, give it two processes' buses."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from worker.db.base import utc_now
from worker.errors import Invalid
from worker.events.handling import Handling, encode
from worker.events.port import EventBusProtocol, Message
from worker.events.types import BaseEvent, DocCreated


def fact(event_type: str = "doc.created", **data) -> BaseEvent:
    return BaseEvent(event_type=event_type, data=data)


class Heard:
    """A handler that collects what it is given."""

    def __init__(self) -> None:
        self.events: list[BaseEvent] = []

    async def __call__(self, event: BaseEvent) -> None:
        self.events.append(event)

    @property
    def numbers(self) -> list[int]:
        return [event.data["n"] for event in self.events]

    async def until(self, done: Callable[[Heard], bool], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not done(self):
                await asyncio.sleep(0.01)

    async def count(self, wanted: int) -> None:
        await self.until(lambda heard: len(heard.events) >= wanted)


class EventBusContract:
    """`here` and `there` are the buses of two processes, started; unacknowledged messages come again after a second."""

    async def test_an_event_arrives_in_the_other_process_as_it_was_sent(self, here, there):
        heard = Heard()
        await there.subscribe("doc.*", heard)
        sent = DocCreated(doctype="Todo", doc_id="7", user_id="ada", data={"title": "ąż 🎉", "n": 2**62})
        await here.publish("doc.created", sent)
        await heard.count(1)
        assert heard.events[0].as_json() == sent.as_json()
        assert isinstance(heard.events[0], DocCreated)

    async def test_patterns_choose(self, here, there):
        one, rest, all_of_it = Heard(), Heard(), Heard()
        await there.subscribe("doc.*", one)
        await there.subscribe("doc.>", rest)
        await there.subscribe(">", all_of_it)
        for topic in ("doc.created", "doc.item.added", "job.failed"):
            await here.publish(topic, fact(topic))
        await all_of_it.count(3)
        await rest.count(2)
        assert [event.event_type for event in one.events] == ["doc.created"]
        assert {event.event_type for event in rest.events} == {"doc.created", "doc.item.added"}

    async def test_every_subscriber_without_a_name_hears_everything(self, here, there):
        first, second = Heard(), Heard()
        await here.subscribe("doc.*", first)
        await there.subscribe("doc.*", second)
        for n in range(5):
            await here.publish("doc.created", fact(n=n))
        await first.count(5)
        await second.count(5)

    async def test_many_events_in_one_message_arrive_one_by_one_in_order(self, here, there):
        heard = Heard()
        await there.subscribe("doc.*", heard)
        await here.publish("doc.created", [fact(n=n) for n in range(500)])
        await heard.count(500)
        assert heard.numbers == list(range(500))

    async def test_a_thousand_messages_all_arrive(self, here, there):
        heard = Heard()
        await there.subscribe("doc.*", heard)
        await here.publish_many([Message("doc.created", encode([fact(n=n)]), f"m{n}") for n in range(1000)])
        await heard.count(1000)
        assert sorted(heard.numbers) == list(range(1000))

    async def test_without_a_time_it_begins_now(self, here, there):
        await here.publish("doc.created", fact(n=1))
        heard = Heard()
        await there.subscribe("doc.*", heard)
        await here.publish("doc.created", fact(n=2))
        await heard.count(1)
        assert heard.numbers == [2]

    async def test_since_a_time_replays_what_was_kept(self, here, there):
        await here.publish("doc.created", fact(n=1))
        await asyncio.sleep(0.05)
        since = utc_now()
        await asyncio.sleep(0.05)
        await here.publish("doc.created", fact(n=2))
        heard, everything = Heard(), Heard()
        await there.subscribe("doc.*", heard, since=since)
        await there.subscribe("doc.*", everything, since=since - timedelta(minutes=1))
        await here.publish("doc.created", fact(n=3))
        await heard.count(2)
        await everything.count(3)
        assert (heard.numbers, everything.numbers) == ([2, 3], [1, 2, 3])

    async def test_a_name_keeps_its_place_while_nobody_is_there(self, here, there):
        heard = Heard()
        subscription = await there.subscribe("doc.*", heard, durable="mailer")
        await here.publish("doc.created", fact(n=1))
        await heard.count(1)
        await subscription.stop()
        await here.publish("doc.created", fact(n=2))
        await there.subscribe("doc.*", heard, durable="mailer")
        await here.publish("doc.created", fact(n=3))
        await heard.count(3)
        assert heard.numbers == [1, 2, 3]

    async def test_two_of_one_name_share_the_messages(self, here, there):
        here.ack_wait_s = there.ack_wait_s = 30.0  # none is to come again
        mine, theirs = Heard(), Heard()
        await here.subscribe("doc.*", mine, durable="pair")
        await there.subscribe("doc.*", theirs, durable="pair")
        for n in range(300):
            await here.publish("doc.created", fact(n=n))
        async with asyncio.timeout(20):
            while len(mine.events) + len(theirs.events) < 300:
                await asyncio.sleep(0.01)
        assert sorted(mine.numbers + theirs.numbers) == list(range(300))

    async def test_what_a_handler_failed_at_comes_again(self, here, there):
        tries = []

        async def third_time_lucky(event: BaseEvent) -> None:
            tries.append(event.event_id)
            if len(tries) < 3:
                raise RuntimeError("not yet")

        await there.subscribe("doc.*", third_time_lucky, durable="patient")
        await here.publish("doc.created", fact())
        async with asyncio.timeout(20):
            while len(tries) < 3:
                await asyncio.sleep(0.01)
        assert len(set(tries)) == 1

    async def test_one_that_fails_does_not_hold_up_the_others(self, here, there):
        heard = Heard()

        async def picky(event: BaseEvent) -> None:
            if event.data["n"] == 0:
                raise RuntimeError("never")
            await heard(event)

        await there.subscribe("doc.*", picky, durable="picky")
        for n in range(10):
            await here.publish("doc.created", fact(n=n))
        await heard.count(9)

    async def test_one_that_fails_for_ever_is_given_up_and_said(self, here, there, monkeypatch):
        for module in ("memory", "nats_pulls", "redis"):
            if found := sys.modules.get(f"worker.events.{module}"):
                monkeypatch.setattr(found, "MAX_DELIVERIES", 3)
                monkeypatch.setattr(found, "delay_s", lambda deliveries: 0.01)
        tries, told = [], asyncio.Event()
        monkeypatch.setattr(Handling, "give_up", lambda handling, topic, deliveries: told.set())

        async def never(event: BaseEvent) -> None:
            tries.append(event.event_id)
            raise RuntimeError("never")

        await there.subscribe("doc.*", never, durable="hopeless")
        await here.publish("doc.created", fact())
        async with asyncio.timeout(20):
            await told.wait()
        await asyncio.sleep(1.5)
        assert len(tries) == 3

    async def test_what_somebody_stopped_in_the_middle_of_reaches_the_other_of_its_name(self, here, there):
        begun, heard = asyncio.Event(), Heard()

        async def stuck(event: BaseEvent) -> None:
            begun.set()
            await asyncio.sleep(3600)

        subscription = await there.subscribe("doc.*", stuck, durable="relay")
        await here.publish("doc.created", fact(n=1))
        async with asyncio.timeout(10):
            await begun.wait()
        await subscription.stop()
        await here.subscribe("doc.*", heard, durable="relay")
        await heard.count(1)

    async def test_a_slow_handler_keeps_its_message(self, here, there):
        here.ack_wait_s = there.ack_wait_s = 3.0
        mine, theirs = Heard(), Heard()

        async def slow(event: BaseEvent) -> None:
            await asyncio.sleep(6.5)
            await theirs(event)

        await there.subscribe("doc.*", slow, durable="slow")
        await here.publish("doc.created", fact(n=1))
        await asyncio.sleep(0.3)
        await here.subscribe("doc.*", mine, durable="slow")
        await theirs.count(1)
        assert mine.events == []

    async def test_an_event_is_handled_once_however_often_it_is_sent(self, here, there):
        heard = Heard()
        await there.subscribe("doc.*", heard)
        event = fact(n=1)
        for _ in range(3):
            await here.publish("doc.created", event)
        await here.publish("doc.created", fact(n=2))
        await heard.count(2)
        assert heard.numbers == [1, 2]

    async def test_a_stopped_subscription_hears_nothing(self, here, there):
        ended, still = Heard(), Heard()
        subscription = await there.subscribe("doc.*", ended)
        await there.subscribe("doc.*", still)
        await subscription.stop()
        await subscription.stop()
        await here.publish("doc.created", fact())
        await still.count(1)
        assert ended.events == []

    @pytest.mark.parametrize(
        "topic", ["", "Doc.created", "doc.*", "doc.>", "doc..created", "doc created", "a" * 201]
    )
    async def test_what_is_no_topic_is_refused(self, here, topic):
        with pytest.raises(Invalid, match="must be words"):
            await here.publish(topic, fact())

    @pytest.mark.parametrize(
        ("pattern", "options"),
        [("doc.>.x", {}), ("", {}), ("doc.*", {"durable": "two words"}), ("doc.*", {"durable": "a.b"})],
    )
    async def test_what_cannot_be_subscribed_to_is_refused(self, here, pattern, options):
        with pytest.raises(Invalid, match=r"pattern|durable"):
            await here.subscribe(pattern, Heard(), **options)

    async def test_it_knows_since_when_it_keeps_messages(self, here, there):
        await here.publish("doc.created", fact())
        assert await here.born() == await there.born()
        assert abs(utc_now() - await here.born()) < timedelta(minutes=5)

    async def test_a_message_of_a_quarter_megabyte_passes(self, here, there):
        heard = Heard()
        await there.subscribe("doc.*", heard)
        event = fact(text="x" * 250_000)
        assert len(encode([event])) < 256 * 1024
        await here.publish("doc.created", event)
        await heard.count(1)


def fresh_prefix() -> str:
    return "t" + uuid.uuid4().hex[:12]


async def stop_all(*buses: EventBusProtocol) -> None:
    for bus in buses:
        await bus.stop()
