"""What a step is estimated to keep, beside what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.saved import most_saved
from tests.trainables.equilibrium.configs import MODES, small
from trainables.equilibrium import stability
from trainables.equilibrium.accounting import memory_per_token
from trainables.equilibrium.config import EquilibriumConfig
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.model import EquilibriumModel

SIZES: dict[str, Any] = {"width": 96, "n_heads": 4, "d_ff": 384, "context": 64, "t1": 10, "t2": 5, "eps": 0.2}


def kept_per_token(config: EquilibriumConfig) -> float:
    """Numbers of four bytes, without what is kept whatever the batch."""
    counts = []
    for batch in (2, 4):
        torch.manual_seed(0)
        weights = EquilibriumModel(config).weights
        of = Problem(config, weights, torch.randint(config.vocab_size, (batch, config.context + 1)))

        def step(of: Problem = of) -> None:
            of.free = ESTIMATORS[config.estimator](of).free
            if config.jr_mode != "off":
                stability.penalty(of, torch.randn_like(of.free.z))

        counts.append(most_saved(step))
    return (counts[1] - counts[0]) / (2 * config.context) / 4


@pytest.mark.parametrize("mode", MODES)
def test_each_step_of_reverse_mode_keeps_an_evaluation(mode: str) -> None:
    config = small(**{**SIZES, **MODES[mode], "qk_norm": False}, estimator="bptt", bptt_steps=8)
    assert kept_per_token(config) == pytest.approx(memory_per_token(config), rel=0.2)


@pytest.mark.parametrize(
    "fields",
    [
        {"estimator": "aep_dyadic"},
        {"estimator": "aep_dyadic", "jr_mode": "fixed"},
        {"estimator": "aep_frozen"},
        {"estimator": "implicit"},
    ],
)
def test_the_estimate_of_what_is_kept_has_room_for_the_states_besides(fields: dict[str, Any]) -> None:
    config = small(**{**SIZES, **fields})
    assert 0.5 * memory_per_token(config) < kept_per_token(config) < 1.05 * memory_per_token(config)
