"""Each finisher beside the control at equal steps, seed by seed: when did it pull ahead, and did it stay there?

What it is: differences of the best value so far, paired by seed, with Student's t intervals over the pairs; a member
that stopped early keeps its value. What it is not: a claim. Each interval has its coverage for one look at one step
(`analysis.stats.claims` makes claims), and who is looked at was chosen for being good.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.stats.interval import mean_interval
from analysis.view import Candidate, Member, Run


@dataclass(frozen=True)
class MatchedSteps:
    """One finisher against the control.

    Attributes:
        candidate, control: ids.
        steps: at which both had reported, for at least one common seed.
        difference: mean of candidate - control in the objective's units and sign, a step.
        low, high: its interval at 95%; NaN for a single pair.
        num_pairs: seeds that both had alive at that step.
        ahead_from: the first step from which on the candidate is better in the mean at every step; None if it is
            not at the last one.
        clear_from: the same, and with an interval that does not reach zero.
    """

    candidate: str
    control: str
    steps: tuple[int, ...]
    difference: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    num_pairs: tuple[int, ...]
    ahead_from: int | None
    clear_from: int | None


def matched_steps(run: Run) -> list[MatchedSteps]:
    """Everybody who was scored at the end, best first; empty without a control, or before anybody got there."""
    control = run.control
    if control is None:
        return []
    finishers = [run.candidates[e.candidate] for e in run.gates[-1] if e.candidate != control.id]
    found = [_compare(run, candidate, control) for candidate in finishers]
    return [one for one in found if one is not None]


def _compare(run: Run, candidate: Candidate, control: Candidate) -> MatchedSteps | None:
    pairs = [(m, control.members[seed]) for seed, m in candidate.members.items() if seed in control.members]
    sides = [(_BestSoFar(run, one), _BestSoFar(run, other)) for one, other in pairs]
    reported = {step for pair in sides for side in pair for step in side.steps}
    rows = []
    for step in sorted(reported):
        values = [(one.at(step), other.at(step)) for one, other in sides]
        differences = [a - b for a, b in values if a is not None and b is not None]
        if differences:
            rows.append((step, *mean_interval(differences), len(differences)))
    if not rows:
        return None
    steps, difference, low, high, num_pairs = zip(*rows, strict=True)
    worst = [run.sign * d for d in difference]
    # The end of the interval that speaks least for the candidate.
    ends = zip(low, high, strict=True)
    bounds = [max(run.sign * a, run.sign * b) if not math.isnan(a) else math.inf for a, b in ends]
    return MatchedSteps(
        candidate.id,
        control.id,
        steps,
        difference,
        low,
        high,
        num_pairs,
        ahead_from=_negative_from(steps, worst),
        clear_from=_negative_from(steps, bounds),
    )


class _BestSoFar:
    """Best value of a member up to a step, as long as it is there."""

    def __init__(self, run: Run, member: Member) -> None:
        self.steps = [r.step for r in member.reports]
        self._values: list[float | None] = []
        # A member that stopped early keeps its value; one that was lost, or is not there yet, has none.
        self._keeps = member.status == "stopped"
        best: float | None = None
        for report in member.reports:
            value = report.value
            if math.isfinite(value) and (best is None or run.sign * (value - best) < 0.0):
                best = value
            self._values.append(None if report.diverged else best)

    def at(self, step: int) -> float | None:
        place = bisect_right(self.steps, step)
        if not place or (step > self.steps[-1] and not self._keeps):
            return None
        return self._values[place - 1]


def _negative_from(steps: Sequence[int], values: Sequence[float]) -> int | None:
    since: int | None = None
    for step, value in zip(steps, values, strict=True):
        since = (step if since is None else since) if value < 0.0 else None
    return since
