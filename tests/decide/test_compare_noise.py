"""Comparisons under noise, through the policy: planted causes are found, and equal configs are called equal."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean

import pytest

from tests.worlds.compared import SIX, Compared, bimodal, causes, comparison
from tune_rh.decide import comparison as compare
from tune_rh.decide.ddmin import Keys

# --- planted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_guilty", "most_seeds"), [(1, 60), (2, 130)])
def test_planted_causes_are_found_exactly_in_95_of_100(num_guilty: int, most_seeds: int) -> None:
    """Six keys differ; all guilty ones together add 0.25 to runs that are good or bad by luck, 0.145 apart."""
    planned = comparison(compare={"bisect": True})
    exact, seeds = 0, []
    for seed in range(100):
        rng = random.Random(f"{num_guilty} {seed}")
        guilty = frozenset(rng.sample(SIX, num_guilty))

        def value(keys: Keys, _seed: int, _step: int, guilty: Keys = guilty, rng: random.Random = rng) -> float:
            return bimodal(rng) + 0.25 * (guilty <= keys)

        sim = Compared(planned, value, slots=1 + 3 * (seed % 2), order=seed).run()
        exact += causes(sim) == ["".join(sorted(guilty))]
        seeds.append(sum(m.step > 0 for midpoint in sim.midpoints() for m in midpoint.members.values()))
    assert exact >= 95
    # An unclear midpoint takes eight seeds, a clear one four.
    assert fmean(seeds) < most_seeds


# --- the null --------------------------------------------------------------------------------------------------------

NUM_NULL = 300
DRAWS = {"bimodal": bimodal, "normal": lambda rng: rng.gauss(1.0, 0.1)}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
@pytest.mark.parametrize("test", ["sign_flip", "e_process"])
def test_of_two_that_are_alike_one_is_called_better_or_worse_at_most_as_often_as_said(
    test: str, draw: Callable[[random.Random], float]
) -> None:
    planned = comparison(compare={"test": test, "region": 0.0})
    rng = random.Random(2)
    claims = 0
    for seed in range(NUM_NULL):
        sim = Compared(planned, lambda *_: draw(rng), slots=1 + 2 * (seed % 2), order=seed).run()
        claims += compare.claim(sim.history).verdict in ("better", "worse")
    assert claims / NUM_NULL <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / NUM_NULL)
