"""`queue.schedule(…)`: a schedule that a program wants to be there, whoever asks how often."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.errors import Invalid
from worker.jobs import secret
from worker.schedules.actions import create, free_name
from worker.schedules.models import NAME_LENGTH, ScheduledJob
from worker.schedules.wishes import checked


async def ensure(
    session: AsyncSession, function: str, cron_expression: str, args: dict[str, Any], *, actor: Actor
) -> ScheduledJob:
    """The schedule of people's own with this function, expression and arguments, in UTC; made if there is none.

    Raises:
        Invalid: naming each wrong field.
    """
    title = f"{function} {cron_expression}"[:NAME_LENGTH]
    wish = {"name": title, "function": function, "args": args, "cron_expression": cron_expression}
    for _ in range(3):
        # Before the look, so that a twin that commits between the two is either seen or has taken the name.
        name = await free_name(session, title, "")
        values = await checked(session, wish)
        same = sa.select(ScheduledJob).where(
            ScheduledJob.function == function,
            ScheduledJob.cron_expression == values["cron_expression"],
            ScheduledJob.time_zone == "UTC",
            ScheduledJob.code_key.is_(None),
            ScheduledJob.deleted_at.is_(None),
        )
        for found in await session.scalars(same.order_by(ScheduledJob.id)):
            if secret.mask(found.args) == secret.mask(values["args"]):
                found.args = values["args"]  # a secret may be another one now
                return found
        try:
            return await create(session, wish | {"name": name}, actor=actor)
        except Invalid as error:
            if error.problems.keys() != {"name"}:
                raise
    raise Invalid({"name": f"{title!r} is being taken by others at this moment"})
