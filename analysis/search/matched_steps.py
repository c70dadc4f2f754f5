"""Each finisher beside the control at equal steps, seed by seed: when did it pull ahead, and did it stay there?

Differences of the best value so far, paired by seed, with Student's t intervals over the pairs; a member that stopped
early keeps its value. Each interval has its coverage for one look at one step, and who is looked at was chosen for
being good (`analysis.stats.claims` makes claims).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.search.best_so_far import BestSoFar, Point, differences
from analysis.view import Candidate, Member, Run


@dataclass(frozen=True)
class MatchedSteps:
    """One finisher less the control, at each step that one of them reported, as far as a common seed goes.

    Attributes:
        ahead_from: the first step from which on the candidate is better in the mean at every step; None if it is
            not at the last one.
        clear_from: the same, and with an interval that does not reach zero.
    """

    candidate: str
    points: tuple[Point, ...]
    ahead_from: int | None
    clear_from: int | None


def matched_steps(run: Run) -> list[MatchedSteps]:
    """All that were scored at the end, best first; empty without a control, or before the first got there."""
    control = run.control
    if control is None:
        return []
    finishers = [run.candidates[e.candidate] for e in run.gates[-1] if e.candidate != control.id]
    compared = [_compare(run, candidate, control) for candidate in finishers]
    return [one for one in compared if one is not None]


def _compare(run: Run, candidate: Candidate, control: Candidate) -> MatchedSteps | None:
    pairs = [(m, control.members[seed]) for seed, m in candidate.members.items() if seed in control.members]
    steps = sorted({report.step for pair in pairs for member in pair for report in member.reports})
    points = tuple(differences([(_curve(run, one), _curve(run, other)) for one, other in pairs], steps))
    if not points:
        return None
    means = [p.mean.times(run.sign) for p in points]
    return MatchedSteps(
        candidate.id,
        points,
        _since(points, (mean.value < 0.0 for mean in means)),
        _since(points, (mean.high < 0.0 for mean in means)),  # the end that speaks least for the candidate
    )


def _curve(run: Run, member: Member) -> BestSoFar:
    """As far as the member is there: one that was lost, or is not there yet, has no value."""
    points = ((r.step, r.value) for r in member.reports if not r.diverged)
    return BestSoFar.of(points, run.sign, keeps=member.status == "stopped")


def _since(points: Iterable[Point], holds: Iterable[bool]) -> int | None:
    """The first step from which on it holds at every step."""
    since: int | None = None
    for point, now in zip(points, holds, strict=True):
        since = (point.step if since is None else since) if now else None
    return since
