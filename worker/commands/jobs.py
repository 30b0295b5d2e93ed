"""`m job …` and `m joblog …`: what can run, and what became of it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from worker.commands.output import complain, say, say_json, say_table
from worker.commands.setting import own_jobs, read_settings, with_database, with_engine

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.engine import Engine

job_app = typer.Typer(help="Run a job and see what becomes of it.", no_args_is_help=True)
joblog_app = typer.Typer(help="Look at the job logs.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `m job run` printed it.")]

WAIT_STEP_S = 0.1


@job_app.command("list")
def list_offers(as_json: AsJson = False) -> None:
    """The jobs that workers offer, and those of M_JOB_MODULES."""
    settings = read_settings()
    own = {
        job.name: job.catalogue_row(max_retries=settings.job_max_retries, timeout_s=settings.job_timeout_s)
        for job in own_jobs(settings)
    }
    offered = with_database(_offers)
    rows = offered | {name: offered.get(name, {}) | row for name, row in own.items()}
    jobs = [
        {
            "name": name,
            "queue": row["queue"],
            "module": row["module"],
            "doc": row["doc"],
            "paused": row.get("paused_at") is not None,
            "offered": name in offered,
        }
        | {field: row.get(field) for field in ("pause_reason", "concurrency", "rate_limit", "rate_burst")}
        for name, row in sorted(rows.items())
    ]
    if as_json:
        say_json(jobs)
    else:
        say_table(
            ("name", "queue", "module", "doc"),
            [[*(j[name] for name in ("name", "queue", "module")), _first_line(j["doc"])] for j in jobs],
        )


@job_app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="The job's name.")],
    args: Annotated[str, typer.Option(help="Its arguments, a JSON object.")] = "{}",
    queue: Annotated[str | None, typer.Option(help="Another queue than the job's own.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 runs first, 9 last.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Not before this instant: 2030-01-31T09:00:00Z.")] = None,
    unique_key: Annotated[str | None, typer.Option(help="At most one live job has this key.")] = None,
    max_retries: Annotated[int | None, typer.Option(min=0, max=1000)] = None,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Seconds one run may take.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Enqueues a job and prints its id."""
    options = {
        "queue": queue,
        "priority": priority,
        "run_at": instant(run_at),
        "unique_key": unique_key,
        "max_retries": max_retries,
        "timeout_s": timeout,
        "tags": tag or (),
    }
    given = arguments(args)

    async def work(engine: Engine) -> dict[str, Any]:
        job_id = await _enqueue(engine, name, given, options)
        if not as_json:
            say(str(job_id))
        return await _end_of(engine.database, job_id) if wait else await _shown(engine.database, job_id)

    _report(with_engine(work, own_jobs(read_settings())), wait=wait, as_json=as_json)


@job_app.command("status")
def status(job_id: JobId, as_json: AsJson = False) -> None:
    """Prints what is known of one job."""
    from worker.commands import show

    wanted = show.job_id(job_id)
    job = with_database(lambda database: show.one_job(database, wanted))
    if as_json:
        say_json(job)
    else:
        say_facts(job)


@job_app.command("retry")
def retry(
    job_id: JobId,
    args: Annotated[
        str | None, typer.Option(help="Run it as a new job with these arguments instead.")
    ] = None,
) -> None:
    """Queues a failed or cancelled job again and prints the id of the job that will run."""
    from worker.accounts.actor import cli_actor
    from worker.commands import show

    wanted, changed = show.job_id(job_id), None if args is None else arguments(args)

    async def work(engine: Engine) -> UUID:
        from worker.joblogs import actions

        async with engine.database.transaction() as session:
            if changed is None:
                job = await actions.retry(session, wanted, actor=cli_actor())
            else:
                job = await actions.rerun(session, wanted, actor=cli_actor(), args=changed)
            return job.id

    say(str(with_engine(work)))


@job_app.command("cancel")
def cancel(job_id: JobId) -> None:
    """Cancels a job: at once while it waits, by asking its worker while it runs."""
    from worker.accounts.actor import cli_actor
    from worker.commands import show

    wanted = show.job_id(job_id)

    async def work(engine: Engine) -> str:
        from worker.joblogs import actions

        async with engine.database.transaction() as session:
            return await actions.cancel(session, wanted, actor=cli_actor())

    say("cancelled" if with_engine(work) == "done" else "asked its worker to stop")


@joblog_app.command("list")
def list_logs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    job: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest job logs."""
    from worker.commands import show
    from worker.joblogs.states import MOVES

    if status is not None and status not in MOVES:
        raise typer.BadParameter(f"{status!r} is not a status: {', '.join(MOVES)}", param_hint="--status")
    jobs = with_database(
        lambda database: show.newest_jobs(database, status=status, job_name=job, queue=queue, limit=limit)
    )
    if as_json:
        say_json(jobs)
        return
    head = ("job_id", "job_name", "queue", "status", "attempt", "enqueued_at", "duration_seconds", "error")
    say_table(head, [[job[name] for name in head] for job in jobs])


def say_facts(facts: dict[str, Any]) -> None:
    """One `name  value` line for every fact that is known."""
    from worker.commands.output import cell_text

    width = max(map(len, facts))
    for name, value in facts.items():
        if value not in (None, [], ""):
            say(f"{name.ljust(width)}  {cell_text(value)}")


def _first_line(doc: str) -> str:
    return doc.strip().partition("\n")[0]


async def _offers(database: Database) -> dict[str, dict[str, Any]]:
    import sqlalchemy as sa

    from worker.jobs.models import JobCatalogue

    async with database.read() as connection:
        rows = (await connection.execute(sa.select(JobCatalogue.__table__))).mappings().all()
    return {row["name"]: dict(row) for row in rows}


async def _enqueue(engine: Engine, name: str, args: dict[str, Any], options: dict[str, Any]) -> UUID:
    from worker.accounts.actor import cli_actor
    from worker.joblogs import actions

    async with engine.database.transaction() as session:
        job = await actions.enqueue(session, name, args, actor=cli_actor(), **options)
        return job.id


async def _shown(database: Database, job_id: UUID) -> dict[str, Any]:
    from worker.commands import show

    return await show.one_job(database, job_id)


async def _end_of(database: Database, job_id: UUID) -> dict[str, Any]:
    """Looks until the job has ended: another process changes the row."""
    from worker.joblogs.states import is_terminal

    while True:
        job = await _shown(database, job_id)
        if is_terminal(job["status"]):
            return job
        await asyncio.sleep(WAIT_STEP_S)


def _report(job: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    if as_json:
        say_json(job)
    if wait and job["status"] != "success":
        complain(
            f"job {job['job_id']} ended as {job['status']}: {job['error'] or job['reason'] or 'no reason given'}"
        )
        raise typer.Exit(1)


def arguments(text: str) -> dict[str, Any]:
    from worker import strict_json
    from worker.errors import Invalid

    given = strict_json.loads(text, "--args")
    if not isinstance(given, dict):
        raise Invalid({"--args": 'must be a JSON object like {"to": "a@b.c"}'})
    return given


def instant(text: str | None, option: str = "--run-at") -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r} is not an instant with its offset, like 2030-01-31T09:00:00Z", param_hint=option
        )
    return at
