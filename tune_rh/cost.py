"""What a plan costs in optimiser steps, before it runs: expected by the quota of its gates, and without any gates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_rh.plan import SearchPlan


@dataclass(frozen=True)
class StageCost:
    """One stage: how many candidates (control included) and members are expected to enter it, and their steps."""

    until_step: int
    num_seeds: int
    num_candidates: int
    num_members: int
    steps: int


def expected(plan: SearchPlan) -> list[StageCost]:
    """Each stage's cost if every gate promotes its quota. A seed that joins late trains from step 0."""
    if plan.unit == "member":
        return _race(plan)
    costs: list[StageCost] = []
    num = plan.num_candidates
    before = (0, 0)
    for i, stage in enumerate(plan.stages):
        old_seeds, old_step = before
        entering = num + plan.has_control
        steps = entering * (
            old_seeds * (stage.until_step - old_step) + (stage.num_seeds - old_seeds) * stage.until_step
        )
        costs.append(StageCost(stage.until_step, stage.num_seeds, entering, entering * stage.num_seeds, steps))
        before = (stage.num_seeds, stage.until_step)
        if i < plan.last_stage:
            num = stage.top or max(stage.at_least, math.ceil(num / (stage.eta or plan.eta)))
            num = min(num, stage.at_most or num, entering - plan.has_control)
    return costs


def _race(plan: SearchPlan) -> list[StageCost]:
    costs: list[StageCost] = []
    racing, before = len(plan.seeds), 0
    for stage in plan.stages:
        steps = racing * (stage.until_step - before)
        costs.append(StageCost(stage.until_step, racing, 1, racing, steps))
        racing, before = stage.top or racing, stage.until_step
    return costs


def ungated_steps(plan: SearchPlan, num_candidates: int | None = None) -> int:
    """Steps to run every candidate (control included) to the end with all seeds of the last stage."""
    last = plan.stages[-1]
    num = plan.num_candidates + plan.has_control if num_candidates is None else num_candidates
    if plan.unit == "member":
        num = 1
    return num * last.num_seeds * last.until_step
