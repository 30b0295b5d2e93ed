"""What SocketProtocol promises, as tests that every adapter runs: subclass `SocketContract` and give it two processes' sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from worker.live.port import Message, SocketProtocol


class Heard:
    """Collects what a handler is given and waits for more."""

    def __init__(self, socket: SocketProtocol) -> None:
        self.messages: list[tuple[str, Message]] = []
        self.end = socket.subscribe(lambda topic, message: self.messages.append((topic, message)))

    async def until(self, done: Callable[[list[tuple[str, Message]]], bool], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not done(self.messages):
                await asyncio.sleep(0.005)

    async def topics(self, *wanted: str) -> None:
        await self.until(lambda messages: set(wanted) <= {topic for topic, _ in messages})


class SocketContract:
    """`here` and `there` are the sockets of two processes, started."""

    async def test_a_message_reaches_the_other_process(self, here: SocketProtocol, there: SocketProtocol):
        heard = Heard(there)
        await here.broadcast("changes", {"changes": [["job", "1", 2]], "outbox": []})
        await heard.topics("changes")
        assert heard.messages == [("changes", {"changes": [["job", "1", 2]], "outbox": []})]

    async def test_ones_own_message_arrives_once_and_at_once(
        self, here: SocketProtocol, there: SocketProtocol
    ):
        mine, theirs = Heard(here), Heard(there)
        await here.broadcast("one", {})
        assert mine.messages == [("one", {})]
        await here.broadcast("two", {})
        await theirs.topics("two")
        await there.broadcast("answer", {})
        await mine.topics("answer")
        assert [topic for topic, _ in mine.messages] == ["one", "two", "answer"]

    async def test_one_sender_is_heard_in_order(self, here: SocketProtocol, there: SocketProtocol):
        heard = Heard(there)
        for number in range(200):
            await here.broadcast("n", {"n": number})
        await heard.until(lambda messages: len(messages) >= 200)
        assert [message["n"] for _, message in heard.messages] == list(range(200))

    async def test_a_message_for_a_user_names_the_user(self, here: SocketProtocol, there: SocketProtocol):
        heard = Heard(there)
        await here.send_to_user("0198-abc", {"text": "hello"})
        await heard.topics("user.0198-abc")

    async def test_any_text_may_be_a_user_id(self, here: SocketProtocol, there: SocketProtocol):
        heard = Heard(there)
        for user_id in ("ada@example.com", "*", ">", "a b\r\nPUB x 1", "ążść", ""):
            await here.send_to_user(user_id, {})
            await heard.topics(f"user.{user_id}")
        assert len(heard.messages) == 6

    async def test_an_ended_subscription_hears_nothing(self, here: SocketProtocol, there: SocketProtocol):
        ended, still = Heard(there), Heard(there)
        ended.end()
        ended.end()
        await here.broadcast("late", {})
        await still.topics("late")
        assert ended.messages == []

    async def test_a_handler_that_fails_does_not_silence_the_others(
        self, here: SocketProtocol, there: SocketProtocol
    ):
        there.subscribe(lambda topic, message: 1 / 0)
        heard = Heard(there)
        await here.broadcast("one", {})
        await here.broadcast("two", {})
        await heard.topics("one", "two")

    async def test_it_says_that_it_is_connected(self, here: SocketProtocol):
        assert here.connected

    async def test_a_million_bytes_still_make_the_others_re_read(
        self, here: SocketProtocol, there: SocketProtocol
    ):
        heard = Heard(there)
        await here.broadcast("changes", {"changes": [["job", "k" * 100, n] for n in range(10_000)]})
        await heard.until(lambda messages: bool({"changes", "resync"} & {topic for topic, _ in messages}))
