"""What a plan costs in optimiser steps, before it runs: expected by the quota of its gates, and without any gates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_rh.plan import SearchPlan


@dataclass(frozen=True)
class StageCost:
    """One stage: how many candidates are expected to enter it (control included), and its steps over all seeds."""

    until_step: int
    num_seeds: int
    num_candidates: int
    steps: int


def expected(plan: SearchPlan) -> list[StageCost]:
    """Each stage's cost if every gate promotes its quota. A seed that joins late trains from step 0."""
    costs: list[StageCost] = []
    num = plan.num_candidates
    before = (0, 0)
    for i, stage in enumerate(plan.stages):
        old_seeds, old_step = before
        entering = num + 1
        steps = entering * (
            old_seeds * (stage.until_step - old_step) + (stage.num_seeds - old_seeds) * stage.until_step
        )
        costs.append(StageCost(stage.until_step, stage.num_seeds, entering, steps))
        before = (stage.num_seeds, stage.until_step)
        if i < plan.last_stage:
            num = stage.top or max(stage.at_least, math.ceil(num / (stage.eta or plan.eta)))
            num = min(num, stage.at_most or num, costs[-1].num_candidates - 1)
    return costs


def ungated_steps(plan: SearchPlan, num_candidates: int | None = None) -> int:
    """Steps to run every candidate (control included) to the end with all seeds of the last stage."""
    last = plan.stages[-1]
    num = plan.num_candidates + 1 if num_candidates is None else num_candidates
    return num * last.num_seeds * last.until_step
