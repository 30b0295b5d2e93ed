"""`m dead-letter …`: failures that nobody has dealt with, by their cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.output import say, say_json, say_table
from worker.commands.setting import with_database, with_engine

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.engine import Engine
    from worker.joblogs.dead_letters import FailureGroup

dead_letter_app = typer.Typer(help="See, retry and resolve failures by their cause.", no_args_is_help=True)

Fingerprint = Annotated[
    str, typer.Argument(metavar="FINGERPRINT", help="The group, as `m dead-letter list` shows it.")
]
Reason = Annotated[str, typer.Option(help="Kept in the audit log.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many jobs it would be.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HEAD = ("fingerprint", "job_name", "queue", "count", "first_at", "last_at", "error")


@dead_letter_app.command("list")
def list_groups(limit: Annotated[int, typer.Option(min=1, max=1000)] = 50, as_json: AsJson = False) -> None:
    """Groups of failed jobs that are not resolved, the last one first."""

    async def look(database: Database) -> list[dict[str, Any]]:
        from worker.joblogs.dead_letters import failure_groups

        async with database.read() as connection:
            return [_shown(group) for group in await failure_groups(connection, limit)]

    groups = with_database(look)
    if as_json:
        say_json(groups)
    else:
        say_table(HEAD, [[group[name] for name in HEAD] for group in groups])


@dead_letter_app.command("retry")
def retry(
    fingerprint: Fingerprint,
    args: Annotated[
        str | None,
        typer.Option(
            help="Arguments to replace in every job, a JSON object: new jobs run, these are resolved."
        ),
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> None:
    """Queues all of a group again, in the background, and prints the id of the operation."""
    from worker.commands.jobs import arguments

    replaced = {} if args is None else arguments(args)
    action, changes = ("rerun", {"args": replaced}) if replaced else ("retry", {})
    _start(fingerprint, action, changes, reason, dry_run=dry_run)


@dead_letter_app.command("resolve")
def resolve(fingerprint: Fingerprint, reason: Reason = "", dry_run: DryRun = False) -> None:
    """Marks all of a group as dealt with until it happens again, and prints the id of the operation."""
    _start(fingerprint, "resolve", {}, reason, dry_run=dry_run)


def _start(fingerprint: str, action: str, more: dict[str, Any], reason: str, *, dry_run: bool) -> None:
    async def work(engine: Engine) -> str:
        from worker.accounts.actor import cli_actor
        from worker.db.base import utc_now
        from worker.errors import NotFound
        from worker.joblogs import bulk
        from worker.joblogs.dead_letters import one_group

        database = engine.database
        async with database.read() as connection:
            group = await one_group(connection, fingerprint)
            if group is None:
                raise NotFound(noun="group of unresolved failures", key=fingerprint)
            wanted = {"q": group.query, **more}
            if dry_run:
                found = await bulk.preview(connection, database.dialect, action, wanted, utc_now())
                return f"{found.will} of {found.matching} jobs"
        async with database.transaction() as session:
            operation = await bulk.start(session, action, wanted, reason=reason, actor=cli_actor())
            return str(operation.id)

    say(with_engine(work))


def _shown(group: FailureGroup) -> dict[str, Any]:
    return {
        **{name: getattr(group, name) for name in HEAD},
        "last_job_id": str(group.last_job_id),
        "resolved_at": group.resolved_at,
    }
