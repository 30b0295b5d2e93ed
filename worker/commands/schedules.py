"""`m schedule …`: what starts by itself, and when."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.jobs import arguments, instant
from worker.commands.output import say, say_json, say_table
from worker.commands.setting import own_jobs, read_settings, with_database, with_engine

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from worker.db.session import Database
    from worker.engine import Engine
    from worker.schedules.models import ScheduledJob

schedule_app = typer.Typer(help="See, make, run and pause schedules.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name, or its id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TimeZone = Annotated[str, typer.Option(help="An IANA time zone like Europe/Warsaw.")]


@schedule_app.command("list")
def list_schedules(as_json: AsJson = False) -> None:
    """Every schedule, what it starts, and when it is due next."""
    found = with_database(_schedules)
    if as_json:
        say_json(found)
        return
    head = ("name", "function", "cron_expression", "time_zone", "state", "last_run", "next_run")
    say_table(head, [[_state(one) if name == "state" else one[name] for name in head] for one in found])


@schedule_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A name that no other schedule has.")],
    job: Annotated[str, typer.Option(help="The name of the job that it starts.")],
    cron: Annotated[str, typer.Option(help="When: '0 9 * * MON-FRI', @daily, 'every 30s'.")],
    time_zone: TimeZone = "UTC",
    args: Annotated[str, typer.Option(help="The job's arguments, a JSON object.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="Another queue than the job's own.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 runs first, 9 last.")] = None,
    missed: Annotated[str, typer.Option(help="What was missed: latest, skip or all.")] = "latest",
    overlap: Annotated[
        str, typer.Option(help="While a run goes on: skip, allow or cancel_running.")
    ] = "skip",
    off: Annotated[bool, typer.Option("--off", help="Make it switched off.")] = False,
) -> None:
    """Makes a schedule and prints its id."""
    wish = {
        "name": name, "function": job, "cron_expression": cron, "time_zone": time_zone, "args": arguments(args),
        "queue": queue, "priority": priority, "missed": missed, "overlap": overlap, "enabled": not off,
    }  # fmt: skip

    async def work(engine: Engine) -> str:
        from worker.accounts.actor import cli_actor
        from worker.schedules import actions

        async with engine.database.transaction() as session:
            return str((await actions.create(session, wish, actor=cli_actor())).id)

    say(with_engine(work, own_jobs(read_settings())))


@schedule_app.command("run")
def run(name: Name) -> None:
    """Starts its job at once and prints the job's id; what it is due next stays."""

    async def work(session: AsyncSession, schedule: ScheduledJob) -> str:
        from worker.accounts.actor import cli_actor
        from worker.schedules import actions

        return str((await actions.run_now(session, schedule.id, actor=cli_actor())).id)

    say(_on(name, work))


@schedule_app.command("pause")
def pause(
    name: Name,
    reason: Annotated[str, typer.Option(help="Shown beside the paused schedule.")] = "",
    until: Annotated[
        str | None, typer.Option(help="It goes on by itself then: 2030-01-31T09:00:00Z.")
    ] = None,
) -> None:
    """Nothing of it is due until `m schedule resume`, or until the pause ends."""
    end = instant(until, "--until")

    async def work(session: AsyncSession, schedule: ScheduledJob) -> str:
        from worker.accounts.actor import cli_actor
        from worker.schedules import actions

        await actions.pause(session, schedule.id, reason=reason, until=end, actor=cli_actor())
        return f"paused {schedule.name}"

    say(_on(name, work))


@schedule_app.command("resume")
def resume(name: Name) -> None:
    """It is due at its next instant from now."""

    async def work(session: AsyncSession, schedule: ScheduledJob) -> str:
        from worker.accounts.actor import cli_actor
        from worker.schedules import actions

        await actions.resume(session, schedule.id, actor=cli_actor())
        return f"resumed {schedule.name}"

    say(_on(name, work))


@schedule_app.command("next")
def show_next(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The schedule's name, or its id.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help="Try out an expression instead.")] = None,
    time_zone: TimeZone = "UTC",
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many instants.")] = 10,
    as_json: AsJson = False,
) -> None:
    """The next instants of a schedule, or of an expression, and what daylight saving does to them."""
    from worker.db.base import utc_now
    from worker.schedules.cron import Rule, checked_expression, checked_zone
    from worker.schedules.preview import preview

    if (name is None) == (cron is None):
        raise typer.BadParameter("give the name of a schedule, or an expression with --cron")
    now = utc_now()
    if cron is not None:
        rule = Rule(checked_expression(cron), checked_zone(time_zone), anchor=now)
    else:
        rule, now = with_database(lambda database: _rule(database, str(name), now))
    made = preview(rule, now, count)
    rows = [{"at": one.at, "local": one.local, "note": one.note} for one in made.next]
    if as_json:
        say_json({"sentence": made.sentence, "next": rows})
        return
    say(made.sentence)
    say_table(("at", "local", "note"), [[row["at"], row["local"], row["note"]] for row in rows])


def _state(schedule: dict[str, Any]) -> str:
    if schedule["retired_at"]:
        return "retired"
    if not schedule["enabled"]:
        return "off"
    return "paused" if schedule["paused_at"] else "on"


async def _schedules(database: Database) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from worker.schedules.models import ScheduledJob
    from worker.schedules.words import sentence

    async with database.session() as session:
        statement = sa.select(ScheduledJob).where(ScheduledJob.deleted_at.is_(None))
        rows = (await session.scalars(statement.order_by(ScheduledJob.name))).all()
    return [
        {
            "schedule_id": str(row.id), "name": row.name, "function": row.function,
            "cron_expression": row.cron_expression, "time_zone": row.time_zone, "sentence": sentence(row.rule),
            "enabled": row.enabled, "paused_at": row.paused_at, "paused_until": row.paused_until,
            "pause_reason": row.pause_reason, "last_run": row.last_fire_at, "next_run": row.next_fire_at,
            "module": row.module, "retired_at": row.retired_at,
        }
        for row in rows
    ]  # fmt: skip


async def _rule(database: Database, name: str, now: datetime) -> tuple[Any, datetime]:
    """The schedule's rule, and from when on it may be due."""
    async with database.session() as session:
        schedule = await _find(session, name)
    if schedule.paused_at is not None and schedule.paused_until is not None:
        now = max(now, schedule.paused_until)
    return schedule.rule, now


def _on(name: str, work: Any) -> str:
    """Does `work` on the schedule in one transaction; answers what it says."""

    async def run(engine: Engine) -> str:
        async with engine.database.transaction() as session:
            return str(await work(session, await _find(session, name)))

    return with_engine(run, own_jobs(read_settings()))


async def _find(session: AsyncSession, name: str) -> ScheduledJob:
    from uuid import UUID

    import sqlalchemy as sa

    from worker.errors import NotFound
    from worker.schedules.models import ScheduledJob

    by_id: sa.ColumnElement[bool] = sa.false()
    with contextlib.suppress(ValueError):
        by_id = ScheduledJob.id == UUID(name)
    wanted = sa.select(ScheduledJob).where(
        ScheduledJob.deleted_at.is_(None), sa.or_(ScheduledJob.name == name, by_id)
    )
    found = (await session.scalars(wanted)).first()
    if found is None:
        raise NotFound(noun="schedule", key=name)
    return found
