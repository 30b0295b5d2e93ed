"""`m worker list|drain|restart`: the processes that run jobs, from anywhere that reaches the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.output import say, say_json, say_table
from worker.commands.setting import with_database, with_engine

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.engine import Engine
    from worker.process.actions import Wish

FACTS = (
    "worker_id", "kind", "host", "pid", "version", "queues", "priorities", "slots", "busy", "memory_mb", "max_memory_mb",
    "max_jobs", "beat_at", "started_at", "stopping_at", "wish", "stale_finishes",
)  # fmt: skip
COLUMNS = ("worker", "kind", "queues", "priorities", "busy", "slots", "memory_mb", "beat_at", "wish")
Which = Annotated[
    str, typer.Argument(metavar="WORKER", help="Its id, or host:pid as `m worker list` prints it.")
]


def add_to(workers: typer.Typer) -> None:
    """Below `m worker`, which without them runs one."""
    workers.command("list")(list_workers)
    workers.command("drain")(drain)
    workers.command("restart")(restart)


def list_workers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every process that lives: what it takes, how busy it is, when it last beat."""
    found = with_database(_workers)
    if as_json:
        say_json(found)
        return
    rows = [
        one | {"worker": f"{one['host']}:{one['pid']}", "queues": ",".join(one["queues"])} for one in found
    ]
    say_table(COLUMNS, [[row[name] for name in COLUMNS] for row in rows])


def drain(worker: Which) -> None:
    """It takes nothing new and ends when its jobs have; no other takes its place until its supervisor gets SIGHUP or is started anew."""
    _ask(worker, "drain")


def restart(worker: Which) -> None:
    """Another takes its place, with the code that is installed by now; it ends when its jobs have."""
    _ask(worker, "restart")


def _ask(text: str, wish: Wish) -> None:
    from worker.accounts.actor import cli_actor

    async def work(engine: Engine) -> None:
        from worker.process import actions

        async with engine.database.transaction() as session:
            await actions.ask(session, await actions.find(session, text), wish, actor=cli_actor())

    with_engine(work)
    say(f"asked {text} to {wish}")


async def _workers(database: Database) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from worker.process.models import Worker

    alive = (
        sa.select(Worker.__table__).where(Worker.ended_at.is_(None)).order_by(Worker.host, Worker.started_at)
    )
    async with database.read() as connection:
        rows = (await connection.execute(alive)).mappings().all()
    return [{name: str(row["id"]) if name == "worker_id" else row[name] for name in FACTS} for row in rows]
