"""What both adapters share: handing a message to the handlers of this process."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from worker.live.port import Handler, Message, user_topic

log = structlog.get_logger(__name__)


class LocalHandlers:
    """The subscribers of one process. One that raises is logged and does not keep the others from hearing."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        self._handlers.append(handler)

        def end() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return end

    def deliver(self, topic: str, message: Message) -> None:
        for handler in tuple(self._handlers):
            try:
                handler(topic, message)
            except Exception:
                log.exception("live_handler_failed", topic=topic)

    async def broadcast(self, topic: str, message: Message) -> None:
        self.deliver(topic, message)

    async def send_to_user(self, user_id: str, message: Message) -> None:
        await self.broadcast(user_topic(user_id), message)
