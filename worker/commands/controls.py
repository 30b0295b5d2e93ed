"""`m job pause|resume|limit` and `m queue limit`: what may start, how many at once, how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.output import say
from worker.commands.setting import with_engine

if TYPE_CHECKING:
    from worker.engine import Engine

NONE = "none"
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
