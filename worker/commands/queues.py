"""`m queue …`: the lanes of jobs, paused and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.output import say, say_json, say_table
from worker.commands.setting import with_database, with_engine

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.engine import Engine

queue_app = typer.Typer(help="See, pause and resume queues.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]


@queue_app.command("list")
def list_queues(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every queue, how much waits and runs in it, and whether it is paused."""
    queues = with_database(_queues)
    if as_json:
        say_json(queues)
        return
    head = ("name", "queued", "running", "concurrency", "scheduled", "retrying", "paused_at", "pause_reason")
    say_table(head, [[queue[name] for name in head] for queue in queues])


@queue_app.command("pause")
def pause(
    name: Name, reason: Annotated[str, typer.Option(help="Shown beside the paused queue.")] = ""
) -> None:
    """Jobs that run go on; none is started until `m queue resume`."""
    from worker.accounts.actor import cli_actor

    async def work(engine: Engine) -> None:
        from worker.jobs import actions

        async with engine.database.transaction() as session:
            await actions.pause_queue(session, name, reason=reason, actor=cli_actor())

    with_engine(work)
    say(f"paused {name}")


@queue_app.command("resume")
def resume(name: Name) -> None:
    """Workers take from it again."""
    from worker.accounts.actor import cli_actor

    async def work(engine: Engine) -> None:
        from worker.jobs import actions

        async with engine.database.transaction() as session:
            await actions.resume_queue(session, name, actor=cli_actor())

    with_engine(work)
    say(f"resumed {name}")


async def _queues(database: Database) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from worker.joblogs import counters
    from worker.joblogs.models import LIVE
    from worker.jobs.models import JobCatalogue, Queue

    async with database.read() as connection:
        counts = await counters.by_queue(connection)
        rows = {row["name"]: row for row in (await connection.execute(sa.select(Queue.__table__))).mappings()}
        offered = set(await connection.scalars(sa.select(JobCatalogue.queue).distinct()))
    controls = ("paused_at", "paused_by", "pause_reason", "concurrency")
    return [
        {"name": name}
        | {status: counts.get((name, status), 0) for status in LIVE}
        | {control: rows[name][control] if name in rows else None for control in controls}
        for name in sorted(offered | set(rows) | {queue for queue, status in counts if status in LIVE})
    ]
