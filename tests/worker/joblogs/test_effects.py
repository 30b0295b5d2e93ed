"""A doubt is ended by whoever knows what became of it, and then the job goes on accordingly."""

from __future__ import annotations

import pytest

from tests.worker.joblogs.conftest import ADA, Bench
from worker.db.base import utc_now
from worker.errors import NotAllowedNow, NotFound
from worker.joblogs import effects
from worker.joblogs.models import Effect
from worker.joblogs.recorder import Outcome


async def doubtful(bench: Bench, *, ended: bool = True) -> Effect:
    """A job that marked an effect and then failed without saying how it went."""
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    effect = Effect(job_id=claimed.id, key="charge", state="started", epoch=claimed.epoch, at=utc_now())
    async with bench.database.transaction() as session:
        session.add(effect)
    if ended:
        await recorder.finish(Outcome(claimed, "failed", error="EffectInDoubt: charge"))
    return effect


async def settle(bench: Bench, effect: Effect, key: str = "charge", *, happened: bool) -> None:
    async with bench.database.transaction() as session:
        await effects.settle(session, effect.job_id, key, happened=happened, actor=ADA)


async def states(bench: Bench, effect: Effect) -> list[tuple[str, str]]:
    async with bench.database.read() as connection:
        return [(one.key, one.state) for one in await effects.effects_of(connection, effect.job_id)]


async def test_what_happened_counts_as_done(bench: Bench) -> None:
    effect = await doubtful(bench)
    assert await states(bench, effect) == [("charge", "started")]
    before = await bench.row(effect.job_id)
    await settle(bench, effect, happened=True)
    assert await states(bench, effect) == [("charge", "done")]
    after = await bench.row(effect.job_id)
    assert (after.status, after.rev) == ("failed", before.rev + 1)
    assert (await bench.events())[-1] == "job.settled"
    with pytest.raises(NotFound, match="no effect in doubt 'charge'"):
        await settle(bench, effect, happened=False)


async def test_what_did_not_happen_is_forgotten(bench: Bench) -> None:
    effect = await doubtful(bench)
    await settle(bench, effect, happened=False)
    assert await states(bench, effect) == []


async def test_what_runs_is_no_doubt_yet(bench: Bench) -> None:
    effect = await doubtful(bench, ended=False)
    with pytest.raises(NotAllowedNow, match="it cannot be settled"):
        await settle(bench, effect, happened=True)
    assert await states(bench, effect) == [("charge", "started")]


async def test_a_key_that_nobody_marked_is_named(bench: Bench) -> None:
    effect = await doubtful(bench)
    with pytest.raises(NotFound, match="no effect in doubt 'other'"):
        await settle(bench, effect, "other", happened=True)
