"""The event bus as a job has it: what it publishes is recorded behind its fence, what it subscribes to is the bus."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from worker.events.actions import publish_event
from worker.events.port import Handler, Subscription
from worker.events.types import BaseEvent

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from worker.jobs.context import Answer, JobContext


class JobBus:
    """`ctx.bus`. In a plain function the methods have done their work when they return."""

    def __init__(self, ctx: JobContext) -> None:
        self._ctx = ctx

    def publish(
        self, topic: str, event: BaseEvent | Mapping[str, Any], *, session: AsyncSession | None = None
    ) -> Answer[str]:
        """Records an event and answers its id; the bus, webhooks and jobs that wait for it get it within a moment.

        `event` is a BaseEvent, whose type must be the topic, or the `data` of one. With a `session` it becomes part
        of that transaction: it is told if, and only if, that commits.

        Raises:
            Invalid: naming what is wrong with it.
            StaleEpoch: the job is no longer this execution's; nothing was recorded.
        """
        return self._ctx.answer(self._publish(topic, event, session))

    def subscribe(
        self, pattern: str, handler: Handler, *, durable: str | None = None, since: datetime | None = None
    ) -> Answer[Subscription]:
        """Hands events to `handler` in the worker's event loop until the subscription is stopped; see EventBusProtocol."""
        return self._ctx.answer(
            self._ctx.engine.bus.subscribe(pattern, handler, durable=durable, since=since)
        )

    async def _publish(
        self, topic: str, event: BaseEvent | Mapping[str, Any], session: AsyncSession | None
    ) -> str:
        if isinstance(event, BaseEvent):
            made: dict[str, Any] = {**event.as_json(), "event_type": topic}
        else:
            made = {"event_type": topic, "data": dict(event)}
        made |= {"caused_by": f"job:{self._ctx.job_id}", "correlation_id": self._ctx.correlation_id}
        made["user_id"] = made.get("user_id") or self._ctx.user_id
        if session is not None:
            return publish_event(session, made).event_id
        async with self._ctx.session() as own:
            return publish_event(own, made).event_id
