"""`m job pause|resume|limit`, `m queue limit`: what may start, how many at once, how often. `m job settle`: doubts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.output import say, say_json, say_table
from worker.commands.setting import with_database, with_engine

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.engine import Engine

NONE = "none"
EFFECT = ("key", "state", "epoch", "at", "value")
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `m job run` printed it.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="The job's name.")]
QueueName = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]
AtOnce = Annotated[
    str | None, typer.Option(metavar="N", help="How many may run at once over all workers, or none.")
]


def add_to(jobs: typer.Typer, queues: typer.Typer) -> None:
    """Beside the other commands of these nouns."""
    jobs.command("pause")(pause_job)
    jobs.command("resume")(resume_job)
    jobs.command("limit")(limit_job)
    jobs.command("effects")(list_effects)
    jobs.command("settle")(settle)
    queues.command("limit")(limit_queue)


def pause_job(
    name: JobName, reason: Annotated[str, typer.Option(help="Shown beside the paused job.")] = ""
) -> None:
    """No worker starts this job until `m job resume`; what runs goes on."""
    _act("pause_job", name, reason=reason)
    say(f"paused {name}")


def resume_job(name: JobName) -> None:
    """Workers start it again."""
    _act("resume_job", name)
    say(f"resumed {name}")


def limit_job(
    name: JobName,
    concurrency: AtOnce = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="How often one may start: 5/s, 30/m, 100/h, 10/d, or none."),
    ] = None,
    burst: Annotated[
        str | None, typer.Option(metavar="N", help="How many may start at once after a pause, or none.")
    ] = None,
) -> None:
    """Limits a job over all workers together; `none` lifts a limit, what is not given stays."""
    given: dict[str, Any] = {}
    if concurrency is not None:
        given["concurrency"] = _number(concurrency, "--concurrency")
    if rate is not None:
        given["rate"] = _rate(rate)
    if burst is not None:
        given["burst"] = _number(burst, "--burst")
    if not given:
        raise typer.BadParameter("give at least one of --concurrency, --rate and --burst")
    _act("set_job_limit", name, **given)
    say(f"limited {name}")


def limit_queue(name: QueueName, concurrency: AtOnce = None) -> None:
    """Limits a queue over all workers together; `none` lifts the limit."""
    if concurrency is None:
        raise typer.BadParameter("give --concurrency, a number or none")
    _act("set_queue_limit", name, concurrency=_number(concurrency, "--concurrency"))
    say(f"limited {name}")


def list_effects(
    job_id: JobId, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """The keys that `ctx.once` spent in a job, those in doubt first."""
    from worker.commands import show

    wanted = show.job_id(job_id)

    async def look(database: Database) -> list[dict[str, Any]]:
        from worker.joblogs import actions, effects

        async with database.session() as session:
            await actions.one(session, wanted)
            found = await effects.effects_of(session, wanted)
        return [{name: getattr(effect, name) for name in EFFECT} for effect in found]

    found = with_database(look)
    if as_json:
        say_json(found)
    else:
        say_table(EFFECT, [[effect[name] for name in EFFECT] for effect in found])


def settle(
    job_id: JobId,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The effect's key, as the job named it.")],
    happened: Annotated[
        bool,
        typer.Option("--happened/--did-not-happen", help="It counts as done, or the next attempt does it."),
    ],
) -> None:
    """Says what became of an effect that nobody knows of because its execution died."""
    from worker.accounts.actor import cli_actor
    from worker.commands import show

    wanted = show.job_id(job_id)

    async def work(engine: Engine) -> None:
        from worker.joblogs import effects

        async with engine.database.transaction() as session:
            await effects.settle(session, wanted, key, happened=happened, actor=cli_actor())

    with_engine(work)
    say("it counts as done" if happened else "the next attempt does it")


def _act(action: str, name: str, **given: Any) -> None:
    from worker.accounts.actor import cli_actor

    async def work(engine: Engine) -> None:
        from worker.jobs import actions

        async with engine.database.transaction() as session:
            await getattr(actions, action)(session, name, actor=cli_actor(), **given)

    with_engine(work)


def _number(text: str, option: str) -> int | None:
    if text == NONE:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise typer.BadParameter(f"{text[:40]!r} is neither a whole number nor none", param_hint=option)
    return int(text)


def _rate(text: str) -> float | None:
    from worker.jobs.rate import parse_rate

    if text == NONE:
        return None
    try:
        return parse_rate(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or none", param_hint="--rate") from None
