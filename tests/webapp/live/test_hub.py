"""What a socket may do, how long it may stay, and what it costs the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.stopwatch import Stopwatch
from webapp.live.messages import MAX_KEYS
from worker.accounts import actions, signing_in
from worker.accounts.actor import Actor
from worker.accounts.models import Session
from worker.accounts.policy import SESSION_IDLE
from worker.db.base import utc_now

ADMIN = Actor("test", "admin")


# Who may come in


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1.evil.example",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://localhost:{port}",
    ],
)
async def test_a_page_of_another_site_is_refused_before_the_upgrade(one, origin):
    token = await one.sign_in()
    origin = origin and origin.format(port=one.port)
    with pytest.raises(InvalidStatus) as refused:
        async with one.open(token, origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_the_public_address_decides_when_there_is_one(sqlite_url, tmp_path):
    from tests.webapp.live.site import site

    async with site(sqlite_url, tmp_path, public_url="http://desk.example.com") as here:
        token = await here.sign_in()
        with pytest.raises(InvalidStatus):
            async with here.open(token, origin=here.base):
                pass
        for host in (
            "https://desk.example.com",
            "http://desk.example.com.evil.com",
            "http://desk.example.com:81",
        ):
            with pytest.raises(InvalidStatus):
                async with here.open(token, origin=host):
                    pass
        async with here.open(token, origin="http://desk.example.com") as connection:
            assert json.loads(await connection.recv()) == {"mode": "live"}


@pytest.mark.parametrize("token", [None, "wrong", "x" * 43])
async def test_who_is_signed_out_is_told_so_and_gets_nothing(one, token):
    async with one.open(token) as connection:
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert connection.close_code == 4401


async def test_a_bearer_token_does_not_open_a_page(one):
    async with one.open(headers={"Authorization": f"Bearer {await one.token('admin')}"}) as connection:
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    assert connection.close_code == 4401


# How long they may stay


async def ends_within_two_seconds(page, act) -> None:
    await page.told(mode="live")
    async with Stopwatch() as watch:
        await act()
        assert await page.closed() == 4401
    assert watch.seconds < 2


async def test_signing_out_in_one_process_closes_the_sockets_of_the_other(two):
    here, there = two
    token = await here.sign_in()
    session_id = await here.session_id(token)

    async def sign_out() -> None:
        async with here.engine.database.transaction() as session:
            await signing_in.sign_out(session, session_id, actor=ADMIN)

    async with there.page(token) as page:
        await ends_within_two_seconds(page, sign_out)


async def test_disabling_a_person_closes_their_sockets(two):
    here, there = two
    token = await here.sign_in()
    user_id = await here.user_id(token)

    async def disable() -> None:
        async with here.engine.database.transaction() as session:
            await actions.disable_user(session, user_id, actor=ADMIN)

    async with there.page(token) as page:
        await ends_within_two_seconds(page, disable)


async def test_a_session_that_ends_without_any_message_closes_too(one):
    token = await one.sign_in()

    async def end() -> None:
        async with one.engine.database.transaction() as session:
            await session.execute(sa.update(Session).values(ended_at=utc_now()))

    async with one.page(token) as page:
        await ends_within_two_seconds(page, end)


@pytest.mark.parametrize("field", ["expires_at", "last_seen_at"])
async def test_an_expired_or_idle_session_closes(one, field):
    token = await one.sign_in()

    async def expire() -> None:  # case 56
        async with one.engine.database.transaction() as session:
            past = utc_now() - (
                SESSION_IDLE + timedelta(seconds=1) if field == "last_seen_at" else timedelta()
            )
            await session.execute(sa.update(Session).values({field: past}))

    async with one.page(token) as page:
        await ends_within_two_seconds(page, expire)


async def test_another_role_changes_what_the_open_page_gets(one):
    token = await one.sign_in("operator")
    user_id = await one.user_id(token)
    job = await one.job()
    async with one.page(token) as page:
        await page.watch((f"job-row:{job}", "1"))
        await page.told(mode="live")
        async with one.engine.database.transaction() as session:
            await actions.set_role(session, user_id, "viewer", actor=ADMIN)
        await page.told(stale="rights")
        await one.move(job, status="failed", error="boom")
        await page.shows("boom")
        assert "<button" not in page.html


async def test_others_stay_when_one_leaves(one):
    gone, stays = await one.sign_in(), await one.sign_in()
    session_id = await one.session_id(gone)
    async with one.page(gone) as a, one.page(stays) as b:
        await a.told(mode="live")
        await b.told(mode="live")
        async with one.engine.database.transaction() as session:
            await signing_in.sign_out(session, session_id, actor=ADMIN)
        assert await a.closed() == 4401
        assert b.code is None


# Abuse


async def test_a_frame_beyond_64_kb_closes_with_1009(one):
    async with one.page() as page:
        await page.say("x" * 66_000)
        assert await page.closed() == 1009


async def test_a_thousand_messages_a_second_close_with_1008(one):
    async with one.page() as page:
        for _ in range(1_100):
            await page.say('{"watch":[]}')
        assert await page.closed() == 1008


async def test_too_many_keys_close_with_1008(one):
    async with one.page() as page:
        for start in range(0, MAX_KEYS + 1, 500):
            pairs = [(f"job-row:{n:036}", "1") for n in range(start, start + 500)]
            await page.say({"also" if start else "watch": pairs})
        assert await page.closed() == 1008


async def test_more_lists_than_a_page_has_close_with_1008(one):
    async with one.page() as page:
        await page.watch(*[(f"job-list:q{n}", "") for n in range(5)])
        assert await page.closed() == 1008


@pytest.mark.parametrize("text", ["retry", '{"cancel": "1"}', "[]", '{"subscribe": ["job.>"]}'])
async def test_a_page_can_ask_to_see_and_nothing_else(one, text):
    async with one.page() as page:
        await page.say(text)
        assert await page.closed() == 1008


async def test_bytes_close_with_1008(one):
    async with one.page() as page:
        await page.connection.send(b"\x00\x01")
        assert await page.closed() == 1008


async def test_compression_is_not_offered(one):
    from websockets.asyncio.client import connect

    token = await one.sign_in()
    headers = {"Origin": one.base, "Cookie": f"session={token}"}
    async with connect(one.ws + "/live", additional_headers=headers, compression="deflate") as connection:
        assert "sec-websocket-extensions" not in connection.response.headers


# Slow readers


async def test_a_stalled_reader_is_dropped_with_1013_and_delays_nobody(one):
    rows = one.live.quick.sources["job-row"]
    real, filler = rows.render, "x" * 50_000
    rows.render = lambda template, context: (
        real(template, context) + (filler if context["job"].queue == "big" else "")
    )
    big, small = [await one.job(queue="big") for _ in range(100)], await one.job()
    async with (
        one.open(await one.sign_in(), max_queue=1, max_size=None) as stalled,
        one.page() as page,
    ):
        await stalled.send(json.dumps({"watch": [(f"job-row:{job}", "1") for job in big]}))
        await page.watch((f"job-row:{small}", "1"))
        await page.told(mode="live")
        slow = next(live for live in one.live.hub.sockets if len(one.live.watch.keys(live)) == len(big))
        stalled.transport.pause_reading()
        lags = []
        for number, job in enumerate(big * 5):
            if slow.code is not None:
                break
            await one.move(job, progress=number / 500)
            began = time.monotonic()
            await one.move(small, progress=number / 500)
            await page.shows(f'data-rev="{number + 2}"')
            lags.append(time.monotonic() - began)
            assert slow.waiting.size <= slow.waiting.cap_bytes + len(filler) * 2
        assert slow.code == 1013
        assert slow.waiting.size == 0
        assert sorted(lags)[len(lags) // 2] < 2
        stalled.transport.resume_reading()
        await read_to_the_end(stalled)
        assert stalled.close_code == 1013


async def test_a_reader_that_never_reads_again_is_dropped_without_a_close_frame(one, monkeypatch):
    monkeypatch.setattr("webapp.live.hub.CLOSE_WAIT_S", 0.3)
    rows = one.live.quick.sources["job-row"]
    real = rows.render
    rows.render = lambda template, context: real(template, context) + "x" * 50_000
    pairs = [(f"job-row:{await one.job()}", "0") for _ in range(40)]
    async with one.open(await one.sign_in(), max_queue=1, max_size=None) as stalled, asyncio.timeout(40):
        stalled.transport.pause_reading()
        while not one.live.hub.sockets:
            await asyncio.sleep(0.001)
        [slow] = one.live.hub.sockets
        full_since = time.monotonic()
        while time.monotonic() - full_since < 0.5:  # what fits into the cap, until nothing leaves any more
            await stalled.send(json.dumps({"watch": pairs[:15]}))
            await asyncio.sleep(0.02)
            full_since = full_since if slow.waiting else time.monotonic()
        assert slow.code is None
        await stalled.send(json.dumps({"watch": pairs}))
        while one.live.watch.ids("job-row"):
            await asyncio.sleep(0.01)
        assert slow.code == 1013
        assert not one.live.hub.sockets
        stalled.transport.abort()


async def read_to_the_end(connection) -> None:  # case 55  # case 54
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(20):
            while True:
                await connection.recv()
