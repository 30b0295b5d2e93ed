"""One process asks for all, and nobody who acted is shown what was true before."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import pytest

from tests.servers.valkey import ValkeyServer
from tests.webapp.site import running_site
from webapp.cached import Cached, Shared
from webapp.pages import overview
from webapp.queries.overview import Bucket, GridRow, Latency
from worker.cache import redis
from worker.cache.redis import RedisCache

BUCKETS = [Bucket(datetime(2026, 11, 25, 12, tzinfo=UTC), "12:00", 3, 1)]


class Question:
    """Counts how often it is asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self) -> object:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@pytest.fixture
def prefix() -> str:
    return f"t{uuid4().hex[:8]}"


@pytest.fixture
async def two(valkey_server: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch):
    """The shared answers of two processes. A machine that stands still for a moment loses none."""
    monkeypatch.setattr(redis, "PATIENCE_S", 10.0)
    caches = [RedisCache(valkey_server.url, prefix) for _ in range(2)]
    for cache in caches:
        await cache.start()
        await asyncio.wait_for(cache._link.answered.wait(), 15)
    yield tuple(Cached(cache) for cache in caches)
    for cache in caches:
        await cache.stop()


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (list[Bucket], BUCKETS),
        (list[Latency], [Latency("mail", 2, {"p50": 0.5, "p99": None}, {"p50": 1.0})]),
        (list[GridRow], [GridRow("<b>send</b>", {"1h": 0, "7d": 12})]),
        (list[str], ["status:failed"]),
    ],
)
async def test_what_one_process_asked_for_serves_the_other(two, kind: type, answer: object):
    here, there = two
    question = Question(answer)
    assert await here.get("chart", 60, question, kind) == answer
    assert await there.get("chart", 60, question, kind) == answer
    assert await there.get("chart", 60, question, kind) == answer
    assert question.asked == 1


async def test_who_acts_makes_every_process_ask_anew(two):
    here, there = two
    question = Question(["before"], ["after"])
    await there.get("chart", 60, question, list[str])
    await here.forget()
    assert await here.get("chart", 60, question, list[str]) == ["after"]
    assert question.asked == 2


async def test_an_answer_that_was_asked_for_before_somebody_acted_is_not_kept_for_others(two):
    here, there = two
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> list[str]:
        began.set()
        await goes_on.wait()
        return ["before"]

    asking = asyncio.create_task(there.get("chart", 60, slow, list[str]))
    await began.wait()
    await here.forget()
    goes_on.set()
    await asking
    assert await here.get("chart", 60, Question(["after"]), list[str]) == ["after"]


async def test_an_answer_of_another_version_is_asked_for_anew(two):
    here, there = two
    await here.get("chart", 60, Question(["a word"]), list[str])
    assert await there.get("chart", 60, Question(BUCKETS), list[Bucket]) == BUCKETS


async def test_who_acted_is_shown_what_it_did_though_the_cache_did_not_hear_of_it(two, monkeypatch):
    here, there = two
    assert await there.get("chart", 60, Question(["before"]), list[str]) == ["before"]

    async def lost(*_: object) -> None:
        pass

    monkeypatch.setattr(here._cache, "put", lost)
    await here.forget()
    assert await here.get("chart", 60, Question(["after"]), list[str]) == ["after"]


async def test_rubbish_in_the_cache_is_asked_for_anew(two):
    here, there = two
    await here._cache.put("answer chart", b"\xff{", 60)
    await here._cache.put("generation", b"\xff", 60)
    assert await there.get("chart", 60, Question(["right"]), list[str]) == ["right"]


async def test_an_answer_is_no_older_than_it_may_be(two):
    here, there = two
    question = Question(["first"], ["second"])
    await here.get("chart", 3, question, list[str])
    await asyncio.sleep(0.1)
    assert await there.get("chart", 3, question, list[str]) == ["first"]
    async with asyncio.timeout(10):
        while await there.get("chart", 3, question, list[str]) != ["second"]:
            await asyncio.sleep(0.01)


async def test_a_process_whose_clock_is_ahead_makes_nothing_last_longer(two):
    here, there = two
    ahead = Shared("", time.time() + 3600, ["from tomorrow"])
    await here._cache.put("answer chart", msgspec.json.encode(ahead), 60)
    assert await there.get("chart", 60, Question(["right"]), list[str]) == ["right"]


async def test_what_is_not_shared_stays_in_the_process(two):
    here, there = two
    question = Question(1, 2)
    assert (await here.get(("tabs", 1), 60, question), await there.get(("tabs", 1), 60, question)) == (1, 2)


async def test_a_chart_of_the_overview_is_counted_once_for_two_web_processes(
    sqlite_url: str, tmp_path, valkey_server: ValkeyServer, prefix: str, monkeypatch
):
    asked: list[str] = []
    throughput = overview.throughput

    async def counted(connection: object, period: str) -> object:
        asked.append(period)
        return await throughput(connection, period)  # type: ignore[arg-type]

    monkeypatch.setattr(overview, "throughput", counted)
    settings = {"redis_url": valkey_server.url, "prefix": prefix}
    async with (
        running_site(sqlite_url, tmp_path, **settings) as here,
        running_site(sqlite_url, tmp_path, **settings) as there,
    ):
        for one in (here, there):
            browser = await one.signed_in(f"Ada {one is here}", "viewer")
            assert (await browser.get("/?period=7d")).status_code == 200
    assert asked == ["7d"]
