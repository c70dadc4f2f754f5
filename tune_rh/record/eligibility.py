"""Whether a candidate may pass a gate at all, whatever its rank: its health, and how far it is behind the control.

Pure functions of a plan and of what has arrived. Not here: the rules on numbers (`tune_rh.record.rules`), ranks
(`tune_rh.record.gate`). The end of the last stage is no gate: no candidate is barred there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean

from analysis.stats.scores import Values
from tune_rh.plan.rules import PromoteRule
from tune_rh.plan.schema import Plan
from tune_rh.record.members import Candidate, Member
from tune_rh.record.rules import out_of_bounds, too_far_behind


def bar(
    plan: Plan,
    candidate: Candidate,
    members: Iterable[Member],
    values: Values,
    control: Candidate | None,
    at_gate: Values | None,
) -> str:
    """Why the candidate may not pass the gate that it has come to; empty if it may.

    Args:
        plan: with its rules.
        candidate: with ``members`` at the gate of its stage.
        members: without a seed that an earlier gate had bought: it stayed there, and reported on another step.
        values: of the members, by seed; None for a lost one.
        control: may be further by now; with its values ``at_gate`` where it has come that far.
        at_gate: see ``control``.
    """
    unhealthy = bar_by_health(plan, candidate.stage, members)
    if unhealthy or plan.gap is None or candidate.stage == plan.last_stage or control is None or at_gate is None:
        return unhealthy
    first, now = [], []
    for seed, value in values.items():
        other = at_gate.get(seed)
        if value is not None and other is not None:
            now.append(value - other)
            first.append(_first(plan, candidate.members[seed]) - _first(plan, control.members[seed]))
    return too_far_behind(plan.gap, first, now) or ""


def bar_by_health(plan: Plan, stage: int, members: Iterable[Member]) -> str:
    """Why a candidate (of a race: a member) may not pass the gate of ``stage`` with these members; empty if it may."""
    if stage == plan.last_stage:
        return ""
    return out_of_bounds(plan.rules.health, [m.curve for m in members if not m.lost]) or ""


def health(rule: PromoteRule | None, members: Iterable[Member]) -> dict[str, float]:
    """The promote rule's metrics: the mean over a candidate's live members at a gate of their last reports."""
    last = [m.curve.metrics[-1] for m in members if m.curve.metrics and not m.lost]
    if rule is None or not last:
        return {}
    return {
        name: fmean(metrics.get(name, math.nan) for metrics in last)
        for name in {wanted.metric for wanted in rule.healthier}
    }


def _first(plan: Plan, member: Member) -> float:
    """The value at the first evaluation of all; NaN without one."""
    curve = member.curve
    return curve.values[0] if curve.steps[:1] == [plan.eval_every] else math.nan
