"""The stream for programs: patterns, tickets that work once, facts that only the database can tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta

import httpx
import nats
import pytest
import sqlalchemy as sa
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.stopwatch import Stopwatch
from tests.webapp.live.site import Page
from worker.accounts import actions
from worker.accounts.actor import Actor
from worker.accounts.models import ApiToken, OneTimeToken
from worker.db.base import new_id, utc_now
from worker.db.session import emit
from worker.live.nats import round_trip

ADMIN = Actor("test", "admin")


@contextlib.asynccontextmanager
async def client(site, token: str | None = None, **options):
    """A program with a bearer token and an open stream."""
    headers = {"Authorization": f"Bearer {token or await site.token()}"}
    async with site.open(path="/api/v1/stream", origin=None, headers=headers, **options) as connection:
        page = Page(connection)
        reading = asyncio.create_task(page.read())
        yield page
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def ticket(site, token: str) -> str:
    async with httpx.AsyncClient(base_url=site.base) as http:
        answer = await http.post("/api/v1/stream/ticket", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201
    assert answer.json()["expires_in_s"] == 60
    return answer.json()["ticket"]


async def subscribed(site, page, *patterns: str) -> None:
    await page.say({"subscribe": patterns})
    await page.until(lambda: any(set(patterns) <= wanted for wanted in site.live.stream.subscribed.values()))


async def publish(site, topic: str, **fields) -> str:
    marker = str(new_id())
    async with site.engine.database.transaction() as session:
        emit(session, topic, {"marker": marker, **fields})
    return marker


# Facts


async def test_every_state_of_a_job_arrives_in_order_from_the_other_process(two):
    here, there = two
    async with client(there) as page:
        await subscribed(there, page, "job.>")
        job = await here.job()
        await here.move(job, status="running")
        await here.move(job, status="success")
        await page.told(topic="job.succeeded")
        assert [m["topic"] for m in page.messages] == ["job.queued", "job.started", "job.succeeded"]
        assert {m["event"]["data"]["job_id"] for m in page.messages} == {str(job)}


async def test_only_what_was_subscribed_arrives(one):
    async with client(one) as page:
        await subscribed(one, page, "doc.*")
        await publish(one, "job.queued")
        await publish(one, "doc.a.b")
        await publish(one, "doc.created")
        await page.told(topic="doc.created")
        assert [m["topic"] for m in page.messages] == ["doc.created"]


async def test_unsubscribing_ends_it(one):
    async with client(one) as page:
        await subscribed(one, page, "job.>", "doc.>")
        await page.say({"unsubscribe": ["job.>"]})
        await page.until(lambda: {"doc.>"} in one.live.stream.subscribed.values())
        await publish(one, "job.queued")
        await publish(one, "doc.created")
        await page.told(topic="doc.created")
        assert len(page.messages) == 1


async def test_two_patterns_that_mean_one_event_bring_it_once(one):
    async with client(one) as page:
        await subscribed(one, page, "job.>", "job.*", "job.queued")
        await publish(one, "job.queued")
        await publish(one, "job.started")
        await page.told(topic="job.started")
        assert [m["topic"] for m in page.messages] == ["job.queued", "job.started"]


async def test_a_forged_message_shows_nothing_that_did_not_happen(two, nats_server):  # case 70
    here, there = two
    async with client(there) as page:
        await subscribed(there, page, "job.>")
        job = await here.job()
        await page.told(topic="job.queued")
        forger = await nats.connect(nats_server.url)
        subject = there.engine.socket.subject + ".changes"
        forged = [
            {
                "outbox": [str(new_id()), "nonsense", 7, None],
                "changes": [["job", str(job), 99], ["x"], 5, [1, 2, 3]],
            },
            {"outbox": "all", "changes": "all"},
            {"topic": "job.succeeded", "event": {"job_id": str(job)}},
        ]
        for message in forged:
            await forger.publish(subject, json.dumps({"topic": "changes", "message": message}).encode())
        await round_trip(forger)
        await here.move(job, status="running")
        await page.told(topic="job.started")
        assert [m["topic"] for m in page.messages] == ["job.queued", "job.started"]
        await forger.close()


async def test_what_happened_while_the_broker_was_away_still_arrives(sqlite_url, own_nats_server, tmp_path):
    from tests.webapp.live.site import site

    async with site(sqlite_url, tmp_path, nats_url=own_nats_server.url) as here, client(here) as page:
        await subscribed(here, page, "doc.>")
        own_nats_server.kill()
        await page.until(lambda: not here.engine.socket.connected)
        async with here.engine.database.engine.begin() as connection:
            from worker.events.models import OutboxRow

            event = {"event_id": "1", "event_type": "doc.created", "data": {}}
            await connection.execute(
                sa.insert(OutboxRow).values(id=new_id(), events=[event], created_at=utc_now())
            )  # another process's commit, whose message is lost
        await page.told(topic="doc.created")
        own_nats_server.start()


async def test_nobody_subscribed_nothing_is_read(one):
    async with client(one) as page:
        await publish(one, "job.queued")
        assert not one.live.stream.due
        await subscribed(one, page, "job.>")
        await publish(one, "job.started")
        await page.told(topic="job.started")
        assert len(page.messages) == 1


# What may be asked


@pytest.mark.parametrize("pattern", [">", "*.>", "*", "*.succeeded"])
async def test_everything_is_for_admins(one, pattern):
    for role in ("viewer", "operator"):
        async with client(one, await one.token(role)) as page:
            await page.say({"subscribe": [pattern]})
            await page.until(lambda: page.messages)
            assert page.messages[0]["error"]["pattern"] == pattern
            await publish(one, "job.succeeded")
            await asyncio.sleep(0.2)
            assert len(page.messages) == 1
    async with client(one, await one.token("admin")) as page:
        await subscribed(one, page, pattern)


@pytest.mark.parametrize(
    "pattern", ["", "a..b", ">.job", "JOB.>", "job.>.x", "$JS.API.>", "../x", "job\r\nSUB", "x" * 400]
)
async def test_what_is_no_pattern_is_answered_with_an_error(one, pattern):  # case 53
    async with client(one) as page:
        await page.say({"subscribe": [pattern, "job.>"]})
        await page.until(lambda: page.messages)
        assert "error" in page.messages[0]
        await publish(one, "job.queued")
        await page.told(topic="job.queued")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cancel": "x"}', '{"subscribe": "job.>"}', "[" * 60_000])
async def test_anything_else_is_answered_with_an_error_and_changes_nothing(one, text):
    async with client(one) as page:
        await page.say(text)
        await page.until(lambda: page.messages)
        assert "error" in page.messages[0]
        assert page.code is None


async def test_facts_about_people_are_for_admins(one):
    async with (
        client(one, await one.token("viewer")) as viewer,
        client(one, await one.token("admin")) as admin,
    ):
        await subscribed(one, viewer, "doc.>")
        await admin.say({"subscribe": ["doc.>"]})
        await admin.until(lambda: list(one.live.stream.subscribed.values()).count({"doc.>"}) == 2)
        await publish(one, "doc.created", doctype="User", doc_id="eve")
        await publish(one, "doc.updated", doctype="Webhook")
        await viewer.told(topic="doc.updated")
        await admin.told(topic="doc.updated")
        assert [m["topic"] for m in viewer.messages] == ["doc.updated"]
        assert [m["topic"] for m in admin.messages] == ["doc.created", "doc.updated"]


async def test_thousands_of_subscriptions_close_with_1008(one):
    async with client(one) as page:
        await page.say({"subscribe": [f"a{n}.b" for n in range(101)]})
        assert await page.closed() == 1008


async def test_a_large_frame_closes_with_1009(one):
    async with client(one) as page:
        await page.say({"subscribe": ["x" * 70_000]})
        assert await page.closed() == 1009


# Who may come in


async def test_a_ticket_opens_the_stream_once(one):
    token = await one.token()
    path = f"/api/v1/stream?token={await ticket(one, token)}"
    async with one.open(path=path, origin=None) as connection:
        page = Page(connection)
        reading = asyncio.create_task(page.read())
        await subscribed(one, page, "job.>")
        await publish(one, "job.queued")
        await page.told(topic="job.queued")
        reading.cancel()
    with pytest.raises(InvalidStatus) as refused:
        async with one.open(path=path, origin=None):
            pass
    assert refused.value.response.status_code in (401, 403)


async def test_two_processes_that_see_one_ticket_at_once_let_one_in(two):
    here, there = two
    path = f"/api/v1/stream?token={await ticket(here, await here.token())}"

    async def enter(site) -> bool:
        try:
            async with site.open(path=path, origin=None):
                return True
        except InvalidStatus:
            return False

    assert sum(await asyncio.gather(*(enter(site) for site in (here, there) * 4))) == 1


async def test_a_ticket_is_good_for_a_minute(one):
    path = f"/api/v1/stream?token={await ticket(one, await one.token())}"
    async with one.engine.database.transaction() as session:
        lives = await session.scalar(
            sa.select(OneTimeToken.expires_at).where(OneTimeToken.purpose == "stream")
        )
        assert timedelta(seconds=50) < lives - utc_now() <= timedelta(seconds=60)
        await session.execute(sa.update(OneTimeToken).values(expires_at=utc_now()))
    with pytest.raises(InvalidStatus):
        async with one.open(path=path, origin=None):
            pass


async def test_a_set_up_link_is_no_ticket(one):
    from worker.accounts import signing_in

    async with one.engine.database.transaction() as session:
        link = (await signing_in.setup_link(session, one.base)).rpartition("=")[2]
    with pytest.raises(InvalidStatus):
        async with one.open(path=f"/api/v1/stream?token={link}", origin=None):
            pass


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=nonsense", "?token=" + "x" * 300, "?ticket=x", "?token=a&token=b"]
)
async def test_without_a_ticket_or_token_nothing_opens(one, query):
    with pytest.raises(InvalidStatus) as refused:
        async with one.open(path="/api/v1/stream" + query, origin=None):
            pass
    assert refused.value.response.status_code in (401, 403)


async def test_a_cookie_does_not_open_it(one):
    session_token = await one.sign_in("admin")
    with pytest.raises(InvalidStatus):
        async with one.open(session_token, path="/api/v1/stream"):
            pass


async def test_an_api_token_is_no_ticket(one):
    """A token in an address would end up in logs."""
    with pytest.raises(InvalidStatus):
        async with one.open(path=f"/api/v1/stream?token={await one.token()}", origin=None):
            pass


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://127.0.0.1:{port}.evil.example", "https://127.0.0.1:{port}"],
)
@pytest.mark.parametrize("by", ["ticket", "bearer"])
async def test_a_page_of_another_site_is_refused_whatever_it_holds(one, origin, by):
    token, origin = await one.token(), origin.format(port=one.port)
    path, headers = "/api/v1/stream", {"Authorization": f"Bearer {token}"}
    if by == "ticket":
        path, headers = f"{path}?token={await ticket(one, token)}", {}
    with pytest.raises(InvalidStatus) as refused:
        async with one.open(path=path, origin=origin, headers=headers):
            pass
    assert refused.value.response.status_code == 403


async def test_a_page_of_our_own_may_use_a_ticket(one):
    path = f"/api/v1/stream?token={await ticket(one, await one.token())}"
    async with one.open(path=path):
        pass


@pytest.mark.parametrize("how", ["revoke", "expire", "disable"])
@pytest.mark.parametrize("by", ["ticket", "bearer"])
async def test_a_token_that_ends_ends_its_sockets_within_two_seconds(one, how, by):
    await one.sign_in("admin")
    token = await one.token()
    path, headers = "/api/v1/stream", {"Authorization": f"Bearer {token}"}
    if by == "ticket":
        path, headers = f"{path}?token={await ticket(one, token)}", {}
    async with one.open(path=path, origin=None, headers=headers) as connection:
        async with Stopwatch() as watch:
            async with one.engine.database.transaction() as session:
                row = await session.scalar(sa.select(ApiToken))
                if how == "revoke":
                    await actions.revoke_token(session, row.id, actor=ADMIN)
                elif how == "expire":
                    row.expires_at = utc_now()
                else:
                    await actions.disable_user(session, row.user_id, actor=ADMIN)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        assert connection.close_code == 4401
        assert watch.seconds < 2


async def test_a_ticket_of_a_token_that_was_revoked_meanwhile_opens_nothing(one):
    token = await one.token()
    path = f"/api/v1/stream?token={await ticket(one, token)}"
    async with one.engine.database.transaction() as session:
        row = await session.scalar(sa.select(ApiToken))
        await actions.revoke_token(session, row.id, actor=ADMIN)
    with pytest.raises(InvalidStatus):
        async with one.open(path=path, origin=None):
            pass


async def test_tickets_need_a_token(one):
    async with httpx.AsyncClient(base_url=one.base) as http:
        assert (await http.post("/api/v1/stream/ticket")).status_code == 401
        cookies = {"Cookie": f"session={await one.sign_in('admin')}"}
        assert (await http.post("/api/v1/stream/ticket", headers=cookies)).status_code == 401
        bearer = {"Authorization": f"Bearer {await one.token()}"}
        assert (await http.get("/api/v1/stream/ticket", headers=bearer)).status_code == 405
