"""What a running job can do with its context, on both databases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from worker import Discard, JobContext, Secret, job, testing
from worker.accounts.models import User
from worker.db import half_open
from worker.db.base import new_id, utc_now
from worker.errors import EffectInDoubt, StaleEpoch, UnknownJob
from worker.joblogs.models import Effect, JobAttempt, JobLog
from worker.jobs.models import Queue

seen: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


@job(queue="mail", retry=2)
async def facts(ctx: JobContext, fail: bool = False) -> dict[str, Any]:
    seen.append((ctx.attempt, ctx.epoch, ctx.idempotency_key))
    if fail and ctx.attempt < 3:
        raise ValueError("not yet")
    return {
        "job_id": str(ctx.job_id), "name": ctx.job_name, "queue": ctx.queue, "user": ctx.user_id,
        "times": ctx.enqueued_at <= ctx.started_at, "cancelled": ctx.cancelled,
    }  # fmt: skip


@job(retry=0)
async def writes(ctx: JobContext, name: str, how: str = "") -> None:
    async with ctx.session() as session:
        session.add(queue(name))
        if how == "steal":
            await session.flush()
            await steal(ctx, in_session=session)
        if how == "fail":
            raise Discard("no")


@job(retry=0)
async def commits_itself(ctx: JobContext, name: str) -> None:
    await steal(ctx)
    async with ctx.session() as session:
        session.add(queue(name))
        await session.commit()


@job(retry=1)
async def dawdles(ctx: JobContext, how: str) -> int:
    holds = ctx.once("kept") if how == "once" else ctx.session()
    async with holds as held:
        session = held.session if how == "once" else held
        session.add(queue(f"q{ctx.attempt}"))
        await session.flush()
        if ctx.attempt == 1:
            await asyncio.sleep(1.0)
    return ctx.attempt


@job
async def uses_repository(ctx: JobContext) -> list[str]:
    async with ctx.repository(Queue) as queues:
        await queues.add(queue("one"))
    async with ctx.session() as session:
        queues = ctx.repository(Queue, session)
        await queues.add_many([queue("two"), queue("three")])
    async with ctx.repository(Queue) as queues:
        return sorted(each.name for each in await queues.list())


@job(retry=3)
async def stores_once(ctx: JobContext) -> bool:
    async with ctx.once("row") as once:
        if once.first:
            once.session.add(queue(f"q{ctx.attempt}"))
            if ctx.attempt == 1:
                raise ValueError("rolled back with its key")
    if ctx.attempt == 2:
        raise ValueError("after it was kept")
    return bool(once)


@job(retry=3)
async def charges_once(ctx: JobContext, dies: bool = False, on_doubt: str = "raise") -> Any:
    async with ctx.once("charge", on_doubt=on_doubt) as once:  # type: ignore[arg-type]  # from JSON
        if once.first:
            seen.append("charged")
            once.value = "receipt-7"
            if dies and len(seen) == 1:
                raise ValueError("died in the middle")
    if ctx.attempt == 1:
        raise ValueError("afterwards")
    return once.value


@job(retry=1)
async def knows_it_did_not_happen(ctx: JobContext) -> str:
    async with ctx.once("charge", on_doubt="raise") as once:
        if ctx.attempt == 1:
            await once.did_not_happen()
            raise ValueError("the card was declined")
        return "charged" if once.first else "skipped"
    return ""


@job(retry=2)
async def goes_on(ctx: JobContext) -> Any:
    seen.append(ctx.saved)
    await ctx.checkpoint({"page": ctx.attempt})
    if ctx.attempt < 3:
        raise ValueError
    return ctx.saved


@job(retry=1)
async def enqueues(ctx: JobContext) -> str:
    child = await ctx.enqueue("facts", {}, key="child")
    seen.append(child)
    if ctx.attempt == 1:
        raise ValueError
    return str(child)


@job
async def loses_hold_and_enqueues(ctx: JobContext) -> None:
    await steal(ctx)
    await ctx.enqueue("facts", {})


@job(retry=0)
def in_a_thread(ctx: JobContext, key: Secret[str]) -> dict[str, Any]:
    ctx.progress(0.25, f"with {key.reveal()}")
    ctx.log(f"line with {key.reveal()}", "warning")
    logging.getLogger("mine").info("standard %s", key.reveal())
    ctx.checkpoint({"key": key.reveal()})
    child = ctx.enqueue("facts", {}, key="x").result()
    with ctx.once("y") as once:
        first = once.first
    user = ctx.user().result()

    async def count() -> int:
        async with ctx.session() as session:
            return int(await session.scalar(sa.select(sa.func.count()).select_from(JobLog)) or 0)

    return {
        "child": str(child), "first": first, "jobs": ctx.run(count()), "saved": ctx.saved, "key": key.reveal(),
        "user": user.name if user else None,
    }  # fmt: skip


@job(retry=0)
async def misuses(ctx: JobContext) -> None:
    with pytest.raises(RuntimeError, match="plain functions"):
        ctx.run(asyncio.sleep(0))
    with pytest.raises(ValueError, match="level='loud'"):
        ctx.log("x", "loud")
    with pytest.raises(UnknownJob):
        await ctx.enqueue("nobody")


@job(retry=0)
async def fails_with_secret(key: Secret[str], login: Secret[dict[str, str]]) -> None:
    raise ValueError(f"could not sign in with {key.reveal()!r} {login.reveal()}")


def queue(name: str) -> Queue:
    return Queue(name=name, created_at=utc_now(), rev=1)


async def steal(ctx: JobContext, in_session: Any = None) -> None:
    """Takes the job away, as a rescue would: it runs again elsewhere, under a higher epoch."""
    taken = sa.update(JobLog).where(JobLog.id == ctx.job_id).values(epoch=JobLog.epoch + 1)
    if in_session is not None:  # SQLite has one writer; what counts is that the fence sees it
        await in_session.execute(taken)
        return
    async with ctx.engine.database.transaction() as session:
        await session.execute(taken)


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[testing.Desk]:
    jobs = (
        facts, writes, commits_itself, uses_repository, stores_once, charges_once, knows_it_did_not_happen, goes_on,
        enqueues, loses_hold_and_enqueues, in_a_thread, misuses, fails_with_secret,
    )  # fmt: skip
    async with testing.desk(*jobs, environ={"DATABASE_URL": database_url, "M_HOME": str(tmp_path)}) as desk:
        yield desk


@pytest.mark.parametrize("how", ["session", "once"])
async def test_a_block_in_which_postgresql_is_asked_nothing_for_too_long_fails_whole_and_is_tried_again(
    how: str, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_open, "IDLE_MS", 200)
    environ = {"DATABASE_URL": postgresql_url, "M_HOME": str(tmp_path)}
    async with testing.desk(dawdles, environ=environ) as desk:
        done = await desk.run(dawdles, how=how)
        assert (done.status, done.result) == ("success", 2)
        async with desk.engine.database.session() as session:
            first = await session.scalar(sa.select(JobAttempt.error).where(JobAttempt.attempt == 1))
        assert "PostgreSQL ends one in which nothing is asked for 0.2 s" in (first or "")
        assert await queues(desk) == ["q2"]


async def queues(desk: testing.Desk) -> list[str]:
    async with desk.engine.database.session() as session:
        return list(await session.scalars(sa.select(Queue.name).order_by(Queue.name)))


async def test_it_knows_who_it_is(desk: testing.Desk) -> None:
    done = await desk.run(facts.with_options(user="ada"))
    assert done.result == {
        "job_id": str(done.id), "name": "facts", "queue": "mail", "user": "ada", "times": True, "cancelled": False,
    }  # fmt: skip


async def test_the_idempotency_key_is_the_same_in_every_attempt(desk: testing.Desk) -> None:
    done = await desk.run(facts, fail=True)
    assert done.status == "success"
    assert seen == [(1, 1, str(done.id)), (2, 2, str(done.id)), (3, 3, str(done.id))]


async def test_a_session_commits_at_the_end_and_rolls_back_on_an_exception(desk: testing.Desk) -> None:
    assert (await desk.run(writes, name="kept")).status == "success"
    assert (await desk.run(writes, name="gone", how="fail")).status == "failed"
    assert await queues(desk) == ["kept"]


async def test_a_late_execution_commits_nothing(desk: testing.Desk) -> None:
    stolen = await desk.engine.enqueue("writes", {"name": "late", "how": "steal"})
    await desk.run_until_idle()
    assert await queues(desk) == []
    await desk.engine.enqueue("commits_itself", {"name": "late"})
    await desk.run_until_idle()
    assert await queues(desk) == []
    row = await desk.job(stolen)
    assert row.status == "failed"  # the stealing was rolled back with the rest, so its own end counts
    assert "StaleEpoch" in (row.error or "")


async def test_a_repository_shares_the_fence(desk: testing.Desk) -> None:
    assert (await desk.run(uses_repository)).result == ["one", "three", "two"]


async def test_a_key_is_kept_with_the_blocks_writes_or_not_at_all(desk: testing.Desk) -> None:
    done = await desk.run(stores_once)
    assert (done.status, done.attempt, done.result) == ("success", 3, False)
    assert await queues(desk) == ["q2"]  # the first attempt's was rolled back, the third skipped it


async def test_an_effect_outside_happens_once_and_its_value_is_kept(desk: testing.Desk) -> None:
    done = await desk.run(charges_once)
    assert (done.result, seen) == ("receipt-7", ["charged"])


async def test_an_effect_in_doubt_is_not_repeated(desk: testing.Desk) -> None:
    done = await desk.run(charges_once, dies=True)
    assert done.status == "failed"
    assert EffectInDoubt.__name__ in (done.error or "")
    assert seen == ["charged"]


async def test_an_effect_in_doubt_is_repeated_where_the_author_said_so(desk: testing.Desk) -> None:
    done = await desk.run(charges_once, dies=True, on_doubt="run")
    assert (done.status, seen) == ("success", ["charged", "charged"])
    async with desk.engine.database.session() as session:
        effect = (await session.scalars(sa.select(Effect))).one()
    assert (effect.key, effect.state, effect.value) == ("charge", "done", "receipt-7")


async def test_an_effect_known_not_to_have_happened_is_tried_again(desk: testing.Desk) -> None:
    assert (await desk.run(knows_it_did_not_happen)).result == "charged"


async def test_a_checkpoint_survives_attempts(desk: testing.Desk) -> None:
    done = await desk.run(goes_on)
    assert seen == [None, {"page": 1}, {"page": 2}]
    assert (done.result, done.checkpoint) == ({"page": 3}, {"page": 3})


async def test_a_child_job_is_enqueued_once_over_all_attempts(desk: testing.Desk) -> None:
    done = await desk.run(enqueues.with_options(user="ada"))
    assert len(seen) == 3  # two attempts and the child's own run
    assert seen[0] == UUID(done.result)
    children = await desk.jobs("facts")
    assert [str(child.id) for child in children] == [done.result]
    assert children[0].caused_by == f"job:{done.id}"
    assert (children[0].user_id, children[0].correlation_id) == ("ada", str(done.id))


async def test_a_late_execution_enqueues_nothing(desk: testing.Desk) -> None:
    await desk.engine.enqueue("loses_hold_and_enqueues")
    await desk.run_until_idle()
    assert await desk.jobs("facts") == []


async def test_a_plain_function_uses_it_from_its_thread(desk: testing.Desk) -> None:
    user = User(id=new_id(), name="ada", role="operator", created_at=utc_now())
    async with desk.engine.database.transaction() as session:
        session.add(user)
    done = await desk.run(in_a_thread.with_options(user=str(user.id)), key="sesame street")
    assert done.status == "success", done.traceback
    result = dict(done.result)
    assert UUID(result.pop("child")) == (await desk.jobs("facts"))[0].id
    assert result == {
        "first": True, "jobs": 2, "saved": {"key": "••••••"}, "key": "••••••", "user": "ada",
    }  # fmt: skip
    assert (done.progress, done.progress_note) == (0.25, "with ••••••")
    assert await desk.lines(done.id) == ["line with ••••••", "standard ••••••"]


async def test_misuse_is_said_in_words(desk: testing.Desk) -> None:
    done = await desk.run(misuses)
    assert done.status == "success", done.traceback


async def test_a_secret_is_stored_nowhere_in_the_clear(desk: testing.Desk) -> None:
    done = await desk.run(fails_with_secret, key="sesame street", login={"password": "open it's me"})
    assert done.status == "failed"
    stored = f"{done.args} {done.error} {done.traceback} {done.error_fingerprint}"
    assert "sesame" not in stored
    assert "it's me" not in stored
    assert "••••••" in (done.error or "")


def test_a_stale_epoch_names_the_job() -> None:
    assert str(StaleEpoch(job_id="x", epoch=3)).startswith("Job x is no longer held")
