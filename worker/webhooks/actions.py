"""What people and programs do with webhooks: the buttons on screen are these functions, same names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import new_id
from worker.db.session import changed, emit, now_of
from worker.errors import ChangedMeanwhile, Invalid, NotFound
from worker.jobs.secret import MASK
from worker.webhooks import secrets, signing
from worker.webhooks.models import NAME_LENGTH, Webhook, WebhookLog, WebhookState
from worker.webhooks.standing import REASON_LENGTH, disable_locked, start_anew, told
from worker.webhooks.taker import insert_logs, log_of
from worker.webhooks.wishes import FIELDS, Wish, columns

TEST_EVENT: Final = "webhook.test"


async def create(session: AsyncSession, wish: Wish, *, actor: Actor) -> tuple[Webhook, str]:
    """Stores a webhook; answers it with its signing secret, which is never shown again.

    Raises:
        Denied: to all but admins; Invalid: naming each wrong field; a taken name too.
    """
    actor.require("admin")
    key, now = secret_key(session), await now_of(session)
    secret = wish.secret or signing.new_secret()
    values = columns(wish, key)
    webhook = Webhook(
        **values,
        id=new_id(),
        secret=secrets.seal(key, secret),
        created_at=now,
        created_by=actor.name[:200],
        updated_at=now,
        version=1,
        rev=1,
    )
    if not webhook.enabled:
        webhook.disabled_at, webhook.disabled_by = now, actor.name[:200]
    await _insert(session, webhook)
    await _told(session, webhook, "webhook.created", actor, {}, visible(webhook))
    return webhook, secret


async def edit(
    session: AsyncSession, webhook_id: UUID, wish: Wish, *, actor: Actor, version: int | None = None
) -> Webhook:
    """Changes the fields that the wish names; secret headers that come masked stay. `version` is the one the caller saw.

    What is due already goes to the new URL under the new rules; retries still send the body that was rendered first.

    Raises:
        Denied: to all but admins; NotFound; Invalid: naming each wrong field; ChangedMeanwhile: it has another version.
    """
    actor.require("admin")
    webhook = await locked(session, webhook_id)
    if version is not None and version != webhook.version:
        raise ChangedMeanwhile(noun="webhook", key=webhook.name, seen=version, current=webhook.version)
    values = columns(wish, secret_key(session), webhook)
    switch = values.pop("enabled", webhook.enabled)
    values = {name: value for name, value in values.items() if getattr(webhook, name) != value}
    if values:
        before = _shown(webhook, values)
        for name, value in values.items():
            setattr(webhook, name, value)
        await _changed(session, webhook)
        if {"url", "method"} & values.keys():
            await start_anew(session, webhook.id)
        await _told(session, webhook, "webhook.changed", actor, before, _shown(webhook, values))
    if switch != webhook.enabled:
        await (
            enable(session, webhook_id, actor=actor) if switch else disable(session, webhook_id, actor=actor)
        )
    return webhook


async def enable(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> Webhook:
    """Switches it on: it is told of what happens from now on, and what waited for it is sent.

    Raises:
        Denied: to all but admins; NotFound.
    """
    actor.require("admin")
    webhook = await locked(session, webhook_id)
    if webhook.enabled:
        return webhook
    before = _shown(webhook, SWITCH)
    webhook.enabled = True
    webhook.disabled_at = webhook.disabled_by = webhook.disabled_reason = None
    await _changed(session, webhook)
    await start_anew(session, webhook.id)
    changed(session, "webhook_due", webhook.id, 1)
    await _told(session, webhook, "webhook.enabled", actor, before, _shown(webhook, SWITCH))
    return webhook


async def disable(session: AsyncSession, webhook_id: UUID, *, reason: str = "", actor: Actor) -> Webhook:
    """Switches it off: events do not match it any more, and what waits for it waits on.

    Raises:
        Denied: to all but admins; NotFound; Invalid: the reason is too long.
    """
    actor.require("admin")
    if len(reason) > REASON_LENGTH or "\0" in reason:
        raise Invalid({"reason": f"has {len(reason)} characters; at most {REASON_LENGTH} are allowed"})
    webhook = await locked(session, webhook_id)
    if webhook.enabled:
        before = _shown(webhook, SWITCH)
        await disable_locked(session, webhook, reason, actor)
        after = _shown(webhook, SWITCH)
        await audit(session, actor, "webhook.disabled", "webhook", webhook.id, before=before, after=after)
    return webhook


async def rotate(
    session: AsyncSession,
    webhook_id: UUID,
    *,
    overlap: timedelta = secrets.OVERLAP,
    secret: str | None = None,
    actor: Actor,
) -> tuple[Webhook, str]:
    """Gives it a new signing secret and answers that; for the time of `overlap` the one before signs too.

    Raises:
        Denied: to all but admins; NotFound; Invalid: a secret or an overlap that is not allowed.
    """
    actor.require("admin")
    problems: dict[str, str] = {}
    if secret is not None and (what := signing.secret_problem(secret)):
        problems["secret"] = what
    if not timedelta() <= overlap <= secrets.LONGEST_OVERLAP:
        most = secrets.LONGEST_OVERLAP // timedelta(hours=1)
        problems["overlap"] = f"{overlap} is not allowed: it must be from 0 to {most} hours"
    if problems:
        raise Invalid(problems)
    webhook = await locked(session, webhook_id)
    now, fresh = await now_of(session), secret or signing.new_secret()
    webhook.previous_secret = webhook.secret if overlap else None
    webhook.previous_secret_until = now + overlap if overlap else None
    webhook.secret, webhook.rotated_at = secrets.seal(secret_key(session), fresh), now
    await _changed(session, webhook)
    until = webhook.previous_secret_until.isoformat() if webhook.previous_secret_until else None
    await _told(session, webhook, "webhook.rotated", actor, {}, {"both_sign_until": until})
    return webhook, fresh


async def delete(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> Webhook:
    """Takes it out of all lists; it can be restored until maintenance purges it. Its deliveries stay to be read.

    Raises:
        Denied: to all but admins; NotFound.
    """
    actor.require("admin")
    webhook = await locked(session, webhook_id)
    webhook.deleted_at = await now_of(session)
    await _changed(session, webhook)
    await _told(session, webhook, "webhook.deleted", actor, {"name": webhook.name}, {})
    return webhook


async def restore(session: AsyncSession, webhook_id: UUID, *, actor: Actor) -> Webhook:
    """Brings a deleted webhook back as it was; if its name was taken meanwhile, under another.

    Raises:
        Denied: to all but admins; NotFound: it was never there, is purged, or is not deleted.
    """
    actor.require("admin")
    webhook = await session.get(Webhook, webhook_id, with_for_update=True, populate_existing=True)
    if webhook is None or webhook.deleted_at is None:
        raise NotFound(noun="deleted webhook", key=str(webhook_id))
    webhook.name = await free_name(session, webhook.name, " restored")
    webhook.deleted_at = None
    await _changed(session, webhook)
    await _told(session, webhook, "webhook.created", actor, {}, {"name": webhook.name})
    return webhook


async def send_test(
    session: AsyncSession, webhook_id: UUID, *, event: Mapping[str, Any] | None = None, actor: Actor
) -> WebhookLog:
    """Sends one event at once, whatever the webhook wants and also while it is off: an example, or `event` with an id of
    its own. It is tried once.

    Raises:
        Denied: to viewers; NotFound.
    """
    actor.require("operator")
    webhook = await locked(session, webhook_id)
    now = await now_of(session)
    example = {
        "event_type": TEST_EVENT,
        "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "user_id": actor.name,
        "data": {"webhook": webhook.name, "message": "This is a test. Nothing happened."},
    }
    sent = {**(example if event is None else event), "event_id": f"test-{new_id()}"}
    values = log_of(webhook, sent, now)
    values |= {"trigger": "test", "next_trigger": "test", "asked_by": actor.name[:200]}
    await insert_logs(session, [values])
    await audit(session, actor, "webhook.test", "webhook", webhook.id, after={"log_id": str(values["id"])})
    log = await session.get(WebhookLog, values["id"])
    assert log is not None
    return log


async def one(session: AsyncSession, webhook_id: UUID) -> Webhook:
    """The webhook, or NotFound."""
    webhook = await session.get(Webhook, webhook_id, populate_existing=True)
    if webhook is None or webhook.deleted_at is not None:
        raise NotFound(noun="webhook", key=str(webhook_id))
    return webhook


async def locked(session: AsyncSession, webhook_id: UUID) -> Webhook:
    """The webhook with its row locked until the transaction ends, or NotFound."""
    webhook = await session.get(Webhook, webhook_id, with_for_update=True, populate_existing=True)
    if webhook is None or webhook.deleted_at is not None:
        raise NotFound(noun="webhook", key=str(webhook_id))
    return webhook


async def free_name(session: AsyncSession, name: str, suffix: str) -> str:
    """`name` if nobody has it, else with the suffix and a number that nobody has."""
    wanted = [name] + [f"{name[: NAME_LENGTH - 20]}{suffix}{f' {n}' if n > 1 else ''}" for n in range(1, 100)]
    statement = sa.select(Webhook.name).where(Webhook.name.in_(wanted), Webhook.deleted_at.is_(None))
    taken = set(await session.scalars(statement))
    return next((one for one in wanted if one not in taken), f"{name[:160]} {new_id()}")


def visible(webhook: Webhook) -> dict[str, Any]:
    """Its fields as JSON for the audit log, secrets masked."""
    return _shown(webhook, FIELDS)


def secret_key(session: AsyncSession) -> str:
    key: str = session.sync_session.info["reception"].settings.secret_key
    return key


SWITCH: Final = ("enabled", "disabled_reason")


def _shown(webhook: Webhook, names: Iterable[str]) -> dict[str, Any]:
    found = {name: getattr(webhook, name) for name in names}
    if "secret_headers" in found:
        found["secret_headers"] = dict.fromkeys(found["secret_headers"], MASK)
    return found


async def _insert(session: AsyncSession, webhook: Webhook) -> None:
    try:
        async with session.begin_nested():
            session.add(webhook)
    except IntegrityError:
        raise Invalid({"name": f"{webhook.name!r} is taken by another webhook"}) from None
    session.add(WebhookState(webhook_id=webhook.id, failures=0))
    await session.flush()


async def _changed(session: AsyncSession, webhook: Webhook) -> None:
    """Writes the row with its next version."""
    webhook.updated_at = await now_of(session)
    webhook.version, webhook.rev = webhook.version + 1, webhook.rev + 1
    name = webhook.name
    try:
        await session.flush()
    except IntegrityError:
        raise Invalid({"name": f"{name!r} is taken by another webhook"}) from None


async def _told(
    session: AsyncSession,
    webhook: Webhook,
    event: str,
    actor: Actor,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    emit(session, event, told(webhook), actor.name)
    changed(session, "webhook", webhook.id, webhook.rev)
    await audit(session, actor, event, "webhook", webhook.id, before=before, after=after)
