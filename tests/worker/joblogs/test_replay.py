"""What the model says is what the real actions do, on both databases, with the time given to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import pytest

from tests.worker.joblogs.conftest import Bench
from tests.worker.joblogs.simulation.mutants import telling
from tests.worker.joblogs.simulation.replay import Differs, Replay, shortest
from tests.worker.joblogs.simulation.world import Step, World, steps_of
from worker.db.session import Database

TRACES = 10 if os.environ.get("CHAOS_SIZE") == "full" else 1
"""For each missing guard."""
STEPS = 50


async def replay(database: Database, steps: Sequence[Step]) -> Differs | None:
    world = World(keep=True).run(steps)
    try:
        replay = Replay(database)
        await replay.empty()
        await replay.run(world.calls)
        await replay.check_events(world)
    except Differs as differs:
        return differs
    return None


@pytest.mark.timeout(900)
async def test_traces_that_tell_a_missing_guard_do_not_tell_the_database_from_the_model(bench: Bench) -> None:
    for seed in telling(STEPS, TRACES):
        if differs := await replay(bench.database, steps_of(seed, STEPS)):
            steps = await shortest(steps_of(seed, STEPS), partial(replay, bench.database))
            raise AssertionError(f"seed {seed}: {differs}\nenough: {steps}")
