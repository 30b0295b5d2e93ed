"""The rules hold in any order of crashes, lost messages and late writers; and these checks notice when they do not."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.joblogs.simulation.checks import Broken
from tests.worker.joblogs.simulation.model import Model
from tests.worker.joblogs.simulation.mutants import UNSAFE
from tests.worker.joblogs.simulation.world import WEIGHTS, Step, World, steps_of

SEEDS = 2000 if os.environ.get("CHAOS_SIZE") == "full" else 400
STEPS = 200

numbers = st.integers(0, 999)
steps = st.lists(st.builds(Step, st.sampled_from(sorted(WEIGHTS)), numbers, numbers), max_size=60)


@pytest.mark.timeout(600)
def test_every_seed_keeps_every_invariant() -> None:
    for seed in range(SEEDS):
        try:
            World().run(steps_of(seed, STEPS))
        except Broken as broken:
            raise AssertionError(f"seed {seed}: {broken}") from broken


@given(steps)
@settings(max_examples=200, deadline=None)
def test_any_steps_keep_every_invariant(steps: list[Step]) -> None:
    World().run(steps)


def test_a_seed_gives_the_same_trace_again() -> None:
    first, second = (World(keep=True).run(steps_of(7, STEPS)).calls for _ in range(2))
    assert first == second


@pytest.mark.parametrize("mutant", UNSAFE)
def test_a_desk_without_one_of_its_guards_is_found_out(mutant: type[Model]) -> None:
    assert any(broken(mutant(), seed) for seed in range(100))


def broken(model: Model, seed: int) -> bool:
    try:
        World(model).run(steps_of(seed, STEPS))
    except Broken:
        return True
    return False
