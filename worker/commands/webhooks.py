"""`m webhook …`: who outside is told of what, and what became of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands.jobs import instant
from worker.commands.output import say, say_json, say_table
from worker.commands.setting import with_database, with_engine

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from worker.db.session import Database
    from worker.engine import Engine
    from worker.webhooks.models import Webhook

webhook_app = typer.Typer(
    help="See, make, test and switch webhooks, and send deliveries again.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name, or its id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Status = Annotated[str | None, typer.Option(help="pending, sending, retrying, success or failed.")]
LOG = ("log_id", "webhook", "event", "status", "response_code", "attempts", "error", "timestamp")


@webhook_app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """Every webhook, which events it wants, and whether it is on."""
    found = with_database(_webhooks)
    if as_json:
        say_json(found)
        return
    head = ("name", "event", "url", "state", "failures")
    say_table(head, [[one[name] for name in head] for one in found])


@webhook_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A name that no other webhook has.")],
    event: Annotated[str, typer.Option(help="Which events: job.failed, doc.*, 'job.>'.")],
    url: Annotated[str, typer.Option(help="Where to: https://hooks.example.com/desk.")],
    doctype: Annotated[str | None, typer.Option(help="Of events of documents, only this doctype.")] = None,
    condition: Annotated[
        str | None, typer.Option(help="A JMESPath expression over the event: \"data.queue == 'mail'\".")
    ] = None,
    method: Annotated[str, typer.Option(help="POST, PUT or PATCH.")] = "POST",
    template: Annotated[
        str | None, typer.Option(help="The body: slack, teams, json, or Jinja that makes JSON.")
    ] = None,
    retry: Annotated[str, typer.Option(help="The plan of retries: short, 27h or 75h.")] = "short",
    off: Annotated[bool, typer.Option("--off", help="Make it switched off.")] = False,
) -> None:
    """Makes a webhook and prints its id and its signing secret, which is not shown again."""
    wish = {
        "name": name, "event": event, "url": url, "doctype_filter": doctype, "condition": condition, "method": method,
        "payload_template": template, "retry": retry, "enabled": not off,
    }  # fmt: skip

    async def work(engine: Engine) -> tuple[str, str]:
        from worker.accounts.actor import cli_actor
        from worker.webhooks import actions, payload
        from worker.webhooks.checks import WebhookChecks
        from worker.webhooks.wishes import checked

        given = wish | {"payload_template": payload.TEMPLATES.get(template or "", template)}
        checks = WebhookChecks(engine.settings)
        try:
            found = await checked(given, checks)
        finally:
            await checks.close()
        async with engine.database.transaction() as session:
            made, secret = await actions.create(session, found, actor=cli_actor())
        return str(made.id), secret

    webhook_id, secret = with_engine(work)
    say(webhook_id)
    say(secret)


@webhook_app.command("enable")
def enable(name: Name) -> None:
    """Switches it on: what waited for it is sent."""

    async def work(session: AsyncSession, webhook: Webhook) -> str:
        from worker.accounts.actor import cli_actor
        from worker.webhooks import actions

        await actions.enable(session, webhook.id, actor=cli_actor())
        return f"switched on {webhook.name}"

    say(_on(name, work))


@webhook_app.command("disable")
def disable(
    name: Name, reason: Annotated[str, typer.Option(help="Shown beside the webhook that is off.")] = ""
) -> None:
    """Switches it off: events do not match it any more, and what waits for it waits on."""

    async def work(session: AsyncSession, webhook: Webhook) -> str:
        from worker.accounts.actor import cli_actor
        from worker.webhooks import actions

        await actions.disable(session, webhook.id, reason=reason, actor=cli_actor())
        return f"switched off {webhook.name}"

    say(_on(name, work))


@webhook_app.command("rotate")
def rotate(
    name: Name,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=168, help="For so long the secret before signs too.")
    ] = 24,
) -> None:
    """Gives it a new signing secret and prints that; it is not shown again."""

    async def work(session: AsyncSession, webhook: Webhook) -> str:
        from datetime import timedelta

        from worker.accounts.actor import cli_actor
        from worker.webhooks import actions

        overlap = timedelta(hours=overlap_hours)
        return (await actions.rotate(session, webhook.id, overlap=overlap, actor=cli_actor()))[1]

    say(_on(name, work))


@webhook_app.command("test")
def test(name: Name) -> None:
    """Sends an example at once, also while it is off, and prints the delivery's id. A clerk must run."""

    async def work(session: AsyncSession, webhook: Webhook) -> str:
        from worker.accounts.actor import cli_actor
        from worker.webhooks import actions
        from worker.webhooks.limits import count_test

        await count_test(session, webhook.id)
        return str((await actions.send_test(session, webhook.id, actor=cli_actor())).id)

    say(_on(name, work))


@webhook_app.command("logs")
def logs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The webhook's name, or its id.")] = None,
    status: Status = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Deliveries, the newest first."""
    found = with_database(lambda database: _logs(database, name, status, limit))
    if as_json:
        say_json(found)
        return
    say_table(LOG, [[one[column] for column in LOG] for one in found])


@webhook_app.command("replay")
def replay(
    log_id: Annotated[str | None, typer.Argument(metavar="ID", help="The id of one delivery.")] = None,
    webhook: Annotated[str | None, typer.Option(help="All of this webhook, by its name or id.")] = None,
    status: Status = None,
    since: Annotated[str | None, typer.Option(help="All from then on: 2030-01-31T09:00:00Z.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=100, help="So many a second.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Sends a delivery again, or all that a filter means as a planned batch."""
    after = instant(since, "--since")
    if (log_id is None) == (webhook is None and status is None and after is None):
        raise typer.BadParameter("give the id of a delivery, or a filter with --webhook, --status or --since")

    async def work(engine: Engine) -> str:
        from worker.accounts.actor import cli_actor
        from worker.webhooks import replays

        async with engine.database.transaction() as session:
            if log_id is not None:
                await replays.replay(session, _uuid(log_id, "delivery"), actor=cli_actor())
                return f"sent again {log_id}"
            of = None if webhook is None else str((await _find(session, webhook)).id)
            wanted = {"webhook_id": of, "status": status, "after": after}
            now = await engine.database.now(session)
            seen = await replays.preview(session, wanted, rate_per_s=rate, cutoff=now)
            count = f"{seen.matching} deliveries, {seen.takes_s:.0f} s"
            if dry_run:
                return count
            batch = await replays.start(session, wanted, rate_per_s=rate, cutoff=now, actor=cli_actor())
            return f"{batch.id}: {count}"

    say(with_engine(work))


async def _webhooks(database: Database) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from worker.webhooks.models import Webhook, WebhookState

    async with database.session() as session:
        statement = (
            sa.select(Webhook, WebhookState)
            .outerjoin(WebhookState, WebhookState.webhook_id == Webhook.id)
            .where(Webhook.deleted_at.is_(None))
            .order_by(Webhook.name)
        )
        rows = (await session.execute(statement)).all()
    return [
        {
            "webhook_id": str(row.id), "name": row.name, "event": row.event, "doctype_filter": row.doctype_filter,
            "condition": row.condition, "url": row.url, "method": row.method, "enabled": row.enabled,
            "state": "on" if row.enabled else "off", "disabled_reason": row.disabled_reason,
            "failures": state.failures if state else 0, "failing_since": state.failing_since if state else None,
        }
        for row, state in rows
    ]  # fmt: skip


async def _logs(database: Database, name: str | None, status: str | None, limit: int) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from worker.webhooks import filters
    from worker.webhooks.models import WebhookLog

    async with database.session() as session:
        of = None if name is None else str((await _find(session, name)).id)
        wanted = filters.checked({"webhook_id": of, "status": status})
        statement = sa.select(WebhookLog).where(*filters.conditions(wanted)).order_by(WebhookLog.id.desc())
        rows = (await session.scalars(statement.limit(limit))).all()
    return [
        {
            "log_id": str(row.id), "webhook": row.webhook_name, "event": row.event_type, "event_id": row.event_id,
            "status": row.status, "response_code": row.response_code, "response_body": row.response_body,
            "error": row.error, "error_class": row.error_class, "timestamp": row.created_at, "attempts": row.attempts,
            "due_at": row.due_at,
        }
        for row in rows
    ]  # fmt: skip


def _on(name: str, work: Any) -> str:
    """Does `work` on the webhook in one transaction; answers what it says."""

    async def run(engine: Engine) -> str:
        async with engine.database.transaction() as session:
            return str(await work(session, await _find(session, name)))

    return with_engine(run)


async def _find(session: AsyncSession, name: str) -> Webhook:
    import sqlalchemy as sa

    from worker.errors import NotFound
    from worker.webhooks.models import Webhook

    by_id: sa.ColumnElement[bool] = sa.false()
    with contextlib.suppress(NotFound):
        by_id = Webhook.id == _uuid(name, "webhook")
    wanted = sa.select(Webhook).where(Webhook.deleted_at.is_(None), sa.or_(Webhook.name == name, by_id))
    found = (await session.scalars(wanted)).first()
    if found is None:
        raise NotFound(noun="webhook", key=name)
    return found


def _uuid(text: str, noun: str) -> Any:
    from uuid import UUID

    from worker.errors import NotFound

    try:
        return UUID(text)
    except ValueError:
        raise NotFound(noun=noun, key=text) from None
