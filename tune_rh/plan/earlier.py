"""What a plan takes along from earlier runs of its family and space: how long ranks lasted, and what was observed.

Where candidates ranked is not taken along: whoever won there has to win again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from tune_rh.plan.rules import PlanTable, PositiveInt
from tune_rh.plan.stages import Learning, Stage

_MOST_PAIRS = 12
"""What one earlier run says of a gate is worth so many candidates at the most: the new run is another."""


class SeenGate(PlanTable):
    """How well ranks at a gate foretold those at the next one.

    Attributes:
        until_step, num_seeds: of the stage that ends in the gate.
        to_step, to_seeds: of the stage after it.
        agreement: correlation over all candidates that came to the gate.
        pairs: candidates that it was seen in.
        seed_variance, seed_df: of one seed there (else at the next gate), in squared units of the objective, and the
            degrees of freedom that it rests on; 0 where nothing is known, or the data are not the same.
    """

    until_step: PositiveInt
    num_seeds: PositiveInt
    to_step: PositiveInt
    to_seeds: PositiveInt
    agreement: Annotated[float, Field(ge=-1, le=1)]
    pairs: PositiveInt
    seed_variance: Annotated[float, Field(ge=0)] = 0.0
    seed_df: Annotated[float, Field(ge=0)] = 0.0

    def is_of(self, here: Stage, there: Stage) -> bool:
        """Whether it lies between these two stages."""
        return (self.until_step, self.num_seeds, self.to_step, self.to_seeds) == (
            here.until_step,
            here.num_seeds,
            there.until_step,
            there.num_seeds,
        )


class Observation(PlanTable):
    """A config that was run to the last step, in Optuna's terms.

    Attributes:
        params, distributions: as the journal has them.
        score: mean over its seeds, minimised.
    """

    params: dict[str, Any]
    distributions: dict[str, str]
    score: float


class Earlier(PlanTable):
    """What is known from earlier runs.

    Attributes:
        runs: their names.
        gates: those that they had.
        observations: what the sampler begins with; of runs with the same fixed fields, last step and objective.
    """

    runs: tuple[str, ...]
    gates: tuple[SeenGate, ...] = ()
    observations: tuple[Observation, ...] = ()

    def prior(self, here: Stage, there: Stage, usual: Learning) -> Learning:
        """What the gate between these stages starts from: what is usual, and what was seen at such gates."""
        seen = [gate for gate in self.gates if gate.is_of(here, there)]
        if not seen:
            return usual
        weights = [float(min(gate.pairs, _MOST_PAIRS)) for gate in seen]
        values = [gate.agreement for gate in seen]
        total = usual.weight + math.fsum(weights)
        value = math.fsum([usual.prior * usual.weight, *(v * w for v, w in zip(values, weights, strict=True))]) / total
        df = math.fsum(gate.seed_df for gate in seen)
        variance = math.fsum(gate.seed_df * gate.seed_variance for gate in seen) / df if df else 0.0
        return replace(usual, prior=value, weight=total, seed_variance=variance, seed_df=min(df, _MOST_PAIRS))
