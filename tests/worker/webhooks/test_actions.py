"""What people do with webhooks: checked, audited, told, undone."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.worker.webhooks.conftest import ADA, OTTO, VERA, Desk, Fine
from worker.accounts.models import AuditEntry
from worker.errors import ChangedMeanwhile, Denied, Invalid, NotFound
from worker.jobs.secret import MASK
from worker.webhooks import actions, secrets
from worker.webhooks.models import Webhook
from worker.webhooks.wishes import checked


def key(desk: Desk) -> str:
    return desk.database.info["reception"].settings.secret_key


async def audits(desk: Desk) -> list[AuditEntry]:
    async with desk.database.session() as session:
        return list(await session.scalars(sa.select(AuditEntry).order_by(AuditEntry.id)))


async def test_a_new_webhook_has_the_defaults_and_a_secret_that_only_its_maker_sees(desk: Desk) -> None:
    async with desk.database.transaction() as session:
        wish = await checked({"name": " hook ", "event": "doc.*", "url": "https://a.example/x"}, Fine())
        hook, secret = await actions.create(session, wish, actor=ADA)
    row = await desk.row(hook)
    assert (row.name, row.method, row.timeout_s, row.retry, row.max_retries) == (
        "hook",
        "POST",
        30.0,
        "short",
        3,
    )
    assert (row.enabled, row.version, row.created_by, row.concurrency) == (True, 1, "ada", 10)
    assert secret.startswith("whsec_")
    assert secret not in row.secret
    assert secrets.in_force(key(desk), row.secret, None, None, desk.now) == [secret]
    told = await desk.events()
    assert [e["event_type"] for e in told] == ["webhook.created"]
    everything = str(told) + str([(a.before, a.after) for a in await audits(desk)])
    assert secret not in everything


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "is needed"),
        ("name", "x" * 201, "1 to 200"),
        ("name", "a\nb", "printable"),
        ("event", "doc..x", "words of a-z"),
        ("event", "Doc.*", "words of a-z"),
        ("url", "https://bad.example/", "is refused"),
        ("url", 7, "must be a text"),
        ("method", "GET", "POST, PUT, PATCH"),
        ("condition", "bad", "is no JMESPath"),
        ("condition", "x" * 2001, "at most 2000"),
        ("payload_template", "bad", "is no template"),
        ("headers", {"Host": "x"}, "Host, which the request sets itself"),
        ("headers", {"X-A": "a\r\nb"}, "printable ASCII"),
        ("headers", ["X-A"], "must be names and texts"),
        ("secret_headers", "X-A", "a list of header names"),
        ("timeout_s", 31, "from 1 to 30"),
        ("timeout_s", float("nan"), "from 1 to 30"),
        ("timeout_s", True, "from 1 to 30"),
        ("retry", "never", "short, 27h, 75h"),
        ("max_retries", 16, "from 0 to 15"),
        ("max_retries", -1, "from 0 to 15"),
        ("rate_per_s", 0, "from 0.01 to 1000"),
        ("concurrency", 0, "from 1 to 50"),
        ("enabled", "yes", "true or false"),
        ("secret", "password", "whsec_"),
        ("doctype_filter", "x" * 201, "at most 200"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_stored(
    sqlite_desk: Desk, field: str, value, said: str
) -> None:
    wish = {"name": "hook", "event": "doc.*", "url": "https://a.example/", field: value}
    with pytest.raises(Invalid) as error:
        await sqlite_desk.do(_create_of, wish)
    assert list(error.value.problems) == [field]
    assert said in error.value.problems[field]
    async with sqlite_desk.database.session() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(Webhook)) == 0


async def _create_of(session, wish, *, actor):
    return await actions.create(session, await checked(wish, Fine()), actor=actor)


async def test_every_wrong_field_is_named_at_once(sqlite_desk: Desk) -> None:
    with pytest.raises(Invalid) as error:
        await sqlite_desk.do(_create_of, {"event": "", "url": "https://bad.example/", "method": "GET"})
    assert sorted(error.value.problems) == ["event", "method", "name", "url"]


async def test_a_taken_name_is_refused_until_its_owner_is_deleted(desk: Desk) -> None:
    first = await desk.create("hook")
    with pytest.raises(Invalid, match="taken by another webhook"):
        await desk.create("hook")
    await desk.do(actions.delete, first.id)
    second = await desk.create("hook")
    restored = await desk.do(actions.restore, first.id)
    assert restored.name == "hook restored"
    with pytest.raises(Invalid, match="taken by another webhook"):
        await desk.edit(second.id, name="hook restored")


async def test_secret_headers_are_encrypted_masked_and_kept_when_they_come_masked(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await desk.create(headers={"X-Team": "billing", "X-Key": "s3cret", "Authorization": "Bearer t"},
                             secret_headers=["X-Key"])  # fmt: skip
    assert hook.headers == {"X-Team": "billing"}
    assert set(hook.secret_headers) == {"X-Key", "Authorization"}
    assert "s3cret" not in str(hook.secret_headers)
    hook = await desk.edit(hook.id, headers={"X-Team": "mail", "X-Key": MASK, "Authorization": "Bearer u"})
    opened = secrets.open_headers(key(desk), hook.secret_headers)
    assert (hook.headers, opened) == ({"X-Team": "mail"}, {"X-Key": "s3cret", "Authorization": "Bearer u"})
    assert "s3cret" not in str([(a.before, a.after) for a in await audits(desk)])
    with pytest.raises(Invalid, match="give its value anew"):
        await desk.edit(hook.id, secret_headers=[])


async def test_whoever_saves_an_old_version_is_told_so(desk: Desk) -> None:
    hook = await desk.create()
    await desk.edit(hook.id, timeout_s=10.0)
    wish = await checked({"timeout_s": 20.0}, Fine(), whole=False)
    with pytest.raises(ChangedMeanwhile) as error:
        await desk.do(actions.edit, hook.id, wish, version=1)
    assert (error.value.seen, error.value.current) == (1, 2)  # type: ignore[attr-defined]
    assert (await desk.row(hook)).timeout_s == 10.0


async def test_a_plan_brings_its_number_of_retries_unless_one_is_given(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create(retry="75h")
    assert hook.max_retries == 9
    assert (await sqlite_desk.edit(hook.id, retry="27h")).max_retries == 7
    with pytest.raises(Invalid, match="from 0 to 7"):
        await sqlite_desk.edit(hook.id, max_retries=8)
    with pytest.raises(Invalid, match="from 0 to 7"):
        await sqlite_desk.create("other", retry="27h", max_retries=8)


async def test_a_rotation_keeps_the_old_secret_for_its_overlap(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await desk.create()
    [old] = secrets.in_force(key(desk), hook.secret, None, None, desk.now)
    row, new = await desk.do(actions.rotate, hook.id)
    both = secrets.in_force(key(desk), row.secret, row.previous_secret, row.previous_secret_until, desk.now)
    assert both == [new, old]
    await desk.deliver()
    sent, day = desk.receiver.got[-1], timedelta(hours=24)
    assert (sent.previous_secret, sent.previous_until) == (row.previous_secret, desk.now + day)
    row, _ = await desk.do(actions.rotate, hook.id, overlap=timedelta())
    assert row.previous_secret is None
    with pytest.raises(Invalid, match="from 0 to 168 hours"):
        await desk.do(actions.rotate, hook.id, overlap=timedelta(days=8))
    assert old not in str(await desk.events())


async def test_switching_off_and_on_is_told_audited_and_forgets_old_failures(desk: Desk) -> None:
    hook = await desk.create(max_retries=0)
    desk.receiver.answers[hook.url] = 500
    await desk.deliver()
    assert (await desk.state(hook)).failures == 1
    row = await desk.do(actions.disable, hook.id, reason="their deploy")
    assert (row.disabled_reason, row.disabled_by, row.disabled_at) == ("their deploy", "ada", desk.now)
    await desk.do(actions.disable, hook.id)
    row = await desk.do(actions.enable, hook.id)
    assert (row.disabled_reason, row.disabled_by, row.disabled_at) == (None, None, None)
    assert (await desk.state(hook)).failures == 0
    assert [e["event_type"] for e in await desk.events()] == [
        "webhook.created", "webhook.disabled", "webhook.enabled",
    ]  # fmt: skip
    assert [a.action for a in await audits(desk)][-2:] == ["webhook.disabled", "webhook.enabled"]


async def test_the_form_may_switch_it_off_too(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create()
    row = await sqlite_desk.edit(hook.id, enabled=False, timeout_s=5.0)
    assert (row.enabled, row.disabled_by, row.timeout_s) == (False, "ada", 5.0)
    assert (await sqlite_desk.edit(hook.id, enabled=True)).disabled_by is None


async def test_an_edit_reaches_what_waits(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await desk.create()
    await desk.happen()
    await desk.match()
    await desk.edit(hook.id, url="https://moved.example/", method="PUT")
    await desk.send()
    assert (desk.receiver.got[0].url, desk.receiver.got[0].method) == ("https://moved.example/", "PUT")


@pytest.mark.parametrize(
    ("actor", "action"),
    [
        (a, n)
        for a in (OTTO, VERA)
        for n in ("create", "edit", "enable", "disable", "rotate", "delete", "restore")
    ]
    + [(VERA, "send_test")],
)
async def test_only_admins_change_webhooks_and_viewers_send_nothing(
    sqlite_desk: Desk, actor, action: str
) -> None:
    hook = await sqlite_desk.create()
    given = {"create": (await checked({"name": "x", "event": "a", "url": "https://x.example"}, Fine()),),
             "edit": (hook.id, await checked({"name": "x"}, Fine(), whole=False))}  # fmt: skip
    with pytest.raises(Denied):
        await sqlite_desk.do(getattr(actions, action), *given.get(action, (hook.id,)), actor=actor)
    assert (await sqlite_desk.row(hook)).version == 1


async def test_a_test_is_sent_once_and_is_marked_as_one(desk: Desk) -> None:
    hook = await desk.create(event="job.failed")
    desk.receiver.answers[hook.url] = 500
    log = await desk.do(actions.send_test, hook.id, actor=OTTO)
    await desk.send()
    log = await desk.log(hook)
    assert (log.trigger, log.event_type, log.status, log.asked_by) == (
        "test",
        "webhook.test",
        "failed",
        "otto",
    )
    [attempt] = await desk.attempts(log)
    assert (attempt.trigger, attempt.user_id) == ("test", "otto")


async def test_a_deleted_webhook_is_gone_for_everybody(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create()
    await sqlite_desk.do(actions.delete, hook.id)
    for action in (actions.enable, actions.disable, actions.rotate, actions.delete, actions.send_test):
        with pytest.raises(NotFound):
            await sqlite_desk.do(action, hook.id)
    with pytest.raises(NotFound):
        await sqlite_desk.do(actions.restore, (await sqlite_desk.create("alive")).id)
