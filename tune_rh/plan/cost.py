"""What a plan costs in optimiser steps, before it runs: expected by the quota of its gates, and without any gates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tune_rh.errors import PlanError
from tune_rh.plan.kinds import Search
from tune_rh.plan.rules import MAX_COUNT
from tune_rh.plan.schema import Plan
from tune_rh.plan.stages import stage_steps


@dataclass(frozen=True)
class StageCost:
    """One stage: how many candidates (control included) and members are expected to enter it, and their steps."""

    until_step: int
    num_seeds: int
    num_candidates: int
    num_members: int
    steps: int


def expected(plan: Plan) -> list[StageCost]:
    """Each stage's cost if every gate promotes its quota. A seed that joins late trains from step 0.

    References run every stage; a follow-up runs those before it is ranked, and then counts like any candidate.
    """
    if plan.members_compete:
        return _race(plan)
    costs: list[StageCost] = []
    enters = [table.enters for table in plan.follow_ups for _ in table.changes] if isinstance(plan, Search) else []
    beside = plan.num_configs - plan.num_candidates - len(enters)
    passed = plan.num_candidates
    for i, stage in enumerate(plan.stages):
        ranked = passed + enters.count(i)
        entering = beside + ranked + sum(k > i for k in enters)
        steps = entering * stage_steps(plan.stages, i)
        costs.append(StageCost(stage.until_step, stage.num_seeds, entering, entering * stage.num_seeds, steps))
        if i < plan.last_stage:
            quota = stage.top or max(stage.at_least, plan.gate(i).quota(ranked, up=True))
            passed = min(quota, stage.at_most or quota, ranked)
    return costs


def follow_up_steps(plan: Plan) -> int:
    """How many of the expected steps are those of follow-ups."""
    without = plan.model_copy(update={"follow_ups": ()})
    return sum(row.steps for row in expected(plan)) - sum(row.steps for row in expected(without))


def _race(plan: Plan) -> list[StageCost]:
    costs: list[StageCost] = []
    racing, before = len(plan.seeds), 0
    for stage in plan.stages:
        steps = racing * (stage.until_step - before)
        costs.append(StageCost(stage.until_step, racing, 1, racing, steps))
        racing, before = stage.top or racing, stage.until_step
    return costs


def ungated_steps(plan: Plan, num_candidates: int | None = None) -> int:
    """Steps to run every candidate (control, references, follow-ups included) to the end with all of its seeds."""
    last, num = plan.stages[-1], num_candidates
    if num is None or plan.members_compete:
        num = plan.num_configs
    return num * last.num_seeds * last.until_step


def even_steps(*steps: int) -> int:
    """A divisor of all ``steps`` that gives about 10 evaluations on the way to the first, and never over 100."""
    if min(steps) < 1 or max(steps) > MAX_COUNT:
        raise PlanError(f"steps = {', '.join(map(str, steps))}: each is 1 to {MAX_COUNT:,}")
    common = math.gcd(*steps)
    # Divisors come in pairs around the root; trying only those keeps any number that a plan may hold quick.
    low = [d for d in range(1, math.isqrt(min(common, MAX_COUNT)) + 1) if common % d == 0]
    every = max(d for d in (*low, *(common // d for d in low)) if d == 1 or d * 10 <= steps[0])
    if steps[0] > 100 * every:
        raise PlanError(f"steps = {', '.join(map(str, steps))}: no divisor to evaluate at; give eval_every")
    return every
