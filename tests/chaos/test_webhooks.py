"""C14, webhooks: twenty of them, five dead, each event for one; and everything that carries them is killed meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.chaos.endpoints import DEAD, Endpoints, endpoints
from tests.chaos.figures import quantile, seconds
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from worker.accounts.actor import Actor
from worker.db.session import record
from worker.events.models import OutboxRow
from worker.events.types import BaseEvent
from worker.process.models import Worker
from worker.webhooks import actions
from worker.webhooks.models import WebhookLog, WebhookState
from worker.webhooks.wishes import Wish, checked

pytestmark = pytest.mark.timeout(600)
ADMIN = Actor("chaos", role="admin")
LIVE, WEBHOOKS = 15, 20


class Unchecked:
    """The endpoints are known to be good, and the site's processes judge them at each send."""

    async def url(self, _url: str) -> None: ...

    async def condition(self, _condition: str) -> None: ...

    async def payload_template(self, _template: str) -> None: ...


async def subscribe(site: Site, there: Endpoints) -> list[Any]:
    """Webhook n wants the events `load.k<n>`; the last five are dead in ways of their own."""
    urls = [there.live(n) for n in range(LIVE)] + [there.dead(kind) for kind in DEAD]
    made = []
    async with site.engine.database.transaction() as session:
        for number, url in enumerate(urls):
            wish: Wish = await checked(
                {"name": f"hook {number}", "event": f"load.k{number}", "url": url}, Unchecked()
            )
            made.append((await actions.create(session, wish, actor=ADMIN))[0])
    return made


async def everything_arrived(site: Site, hooks: list[Any], timeout_s: float) -> None:
    live = [hook.id for hook in hooks[:LIVE]]

    async def done() -> bool:
        database = site.engine.database
        if await database.any(OutboxRow, OutboxRow.matched_at.is_(None)):
            return False
        if await database.any(WebhookLog, WebhookLog.webhook_id.in_(live), WebhookLog.status != "success"):
            return False
        dead = sa.exists().where(Worker.id == WebhookLog.claimed_by, Worker.ended_at.is_not(None))
        return not await database.any(WebhookLog, WebhookLog.status == "sending", dead)

    await site.until(done, timeout_s, "every delivery to live webhooks, and none to stay with a dead courier")


def say(report: Report, there: Endpoints, expected: dict[int, set[str]]) -> None:
    lost = sum(len(ids - set(there.got[number])) for number, ids in expected.items())
    arrived = sum(len(there.got[number]) for number in expected)
    report.say("events for live webhooks, lost", f"{sum(map(len, expected.values()))}, {lost}", "0 lost")
    report.say("arrived more than once", arrived - sum(len(set(there.got[n])) for n in expected))
    report.say("lag, p50", seconds(quantile(there.lags_s, 0.5)))
    report.say("lag, p95", seconds(quantile(there.lags_s, 0.95)), "<= 1 s")
    report.say("requests that dead webhooks cost", str(dict(there.connections)))
    assert lost == 0


@on("postgresql")
async def test_c14_dead_endpoints_cost_live_ones_nothing(site, full: bool, report: Report) -> None:
    here: Site = await site(M_WEBHOOK_ALLOW="127.0.0.1")
    per_s, lasts_s = (200, 60) if full else (60, 4)
    here.host()
    await here.ready(workers=1, clerks=1)
    async with endpoints() as there:
        hooks = await subscribe(here, there)
        expected: dict[int, set[str]] = {n: set() for n in range(LIVE)}
        started, publishing = time.monotonic(), set()

        async def publish(number: int) -> None:
            event = BaseEvent(event_type=f"load.k{number}", data={"n": number})
            async with here.engine.database.transaction() as session:
                record(session.sync_session, event.as_json())
            if number < LIVE:
                expected[number].add(event.event_id)

        for n in range(per_s * lasts_s):
            await asyncio.sleep(max(0.0, started + n / per_s - time.monotonic()))
            publishing.add(task := asyncio.create_task(publish(n % WEBHOOKS)))
            task.add_done_callback(publishing.discard)
        while publishing:
            await asyncio.wait(set(publishing))
        took = time.monotonic() - started
        await everything_arrived(here, hooks, 120)
        report.say("events a second, published", f"{per_s * lasts_s / took:.0f} for {took:.0f} s", f"{per_s}")
        say(report, there, expected)
        states = await here.rows(WebhookState, WebhookState.failures > 0)
        assert {state.webhook_id for state in states} <= {hook.id for hook in hooks[LIVE:]}


async def test_c14_no_delivery_is_lost_while_everything_that_carries_it_is_killed(
    postgresql_site, seed: int, full: bool, report: Report
) -> None:
    here: Site = await postgresql_site(M_WEBHOOK_ALLOW="127.0.0.1")
    nemesis, dice = Nemesis(here, seed), random.Random(seed)
    per_s, lasts_s, hosts = (60, 60, 2) if full else (15, 8, 1)
    for _ in range(hosts):
        here.host()
    await here.ready(workers=hosts, clerks=hosts)
    await asyncio.gather(*(here.web() for _ in range(hosts)))
    async with endpoints() as there, httpx.AsyncClient(timeout=10) as client:
        hooks = await subscribe(here, there)
        expected: dict[int, set[str]] = {n: set() for n in range(LIVE)}
        refused = 0

        async def publish(number: int) -> None:
            """Only what was answered with 202 counts."""
            nonlocal refused
            if not here.webs:
                refused += 1
                return
            web = dice.choice(here.webs)
            headers = {"Authorization": f"Bearer {here.token}"}
            event = {"event_type": f"load.k{number}", "data": {"n": number}}
            try:
                answer = await client.post(f"{web.base}/api/v1/events", json=event, headers=headers)
            except httpx.HTTPError:
                refused += 1
                return
            assert answer.status_code == 202, answer.text
            if number < LIVE:
                expected[number].add(answer.json()["event_id"])

        async def kill_web() -> None:
            here.webs.remove(web := dice.choice(here.webs))
            await here.do(web.kill)
            await here.web()

        plan = [
            *nemesis.spread(2 if not full else 12, lasts_s, nemesis.kill_clerk),
            *nemesis.spread(1 if not full else 4, lasts_s, kill_web),
            *nemesis.spread(1 if not full else 4, lasts_s, nemesis.kill_host),
            *nemesis.spread(1 if not full else 4, lasts_s, lambda: nemesis.kill_broker(1.0)),
        ]
        storm = asyncio.create_task(nemesis.rage(plan))
        started, publishing = time.monotonic(), set()
        for n in range(per_s * lasts_s):
            await asyncio.sleep(max(0.0, started + n / per_s - time.monotonic()))
            publishing.add(task := asyncio.create_task(publish(n % WEBHOOKS)))
            task.add_done_callback(publishing.discard)
        while publishing:
            await asyncio.wait(set(publishing))
        await storm
        await everything_arrived(here, hooks, 180)
        kinds = [strike.kind for strike in nemesis.log]
        report.say(
            "strikes", ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) + ", web"
        )
        report.say("requests that a killed web left unanswered", refused)
        say(report, there, expected)
