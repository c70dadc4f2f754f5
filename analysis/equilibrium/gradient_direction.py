"""Does the gradient of each estimator point the right way, late in training?

What it is: each evaluation records the cosine of the estimator's gradient and the exact one on a few fixed sequences,
all weights but the head's. Early in training the field contracts and every estimator is right, and a single late
reading may lie anywhere, so what is judged is the mean over all readings in the last third of the run's steps, member
by member, with Student's t over seeds. An estimator of several candidates has for each seed the mean of their members.
What it is not: a comparison of losses, which the ranking is. A wrong direction shows in the loss only later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.language.finishers import value_of
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate, Member, Run

RIGHT = 0.9
"""Mean cosine from which on an estimator points the right way, 26 degrees: moments when nothing settles are in it."""
WRONG = 0.5
"""Mean cosine below which it points the wrong way, more than 60 degrees off."""
_COSINE = "cosine"
_PARTS = 3
"""Of the run's steps: readings in the first are early, those in the last late."""

Word = Literal["right", "off", "wrong", "open"]


@dataclass(frozen=True)
class Direction:
    """Where the gradients of one estimator, or of one candidate, point.

    Attributes:
        early, late: mean cosine with Student's t over seeds.
        lowest: of single late readings.
        num_seeds: that have late readings.
    """

    early: Interval
    late: Interval
    lowest: float
    num_seeds: int

    @property
    def word(self) -> Word:
        """Whether it is right is told by the whole interval, how wrong it is by the mean; one seed by that alone."""
        ends = [end for end in (self.late.low, self.late.high) if math.isfinite(end)] or [self.late.value]
        if min(ends) >= RIGHT:
            return "right"
        if max(ends) >= RIGHT:
            return "open"
        return "wrong" if self.late.value < WRONG else "off"


@diagnostic("Direction of the gradient late in training, by estimator", needs="records")
def gradient_direction(run: Run) -> Finding:
    """Return a finding with values ``late_cosine_<estimator>``, ``early_cosine_<estimator>`` and
    ``lowest_cosine_<estimator>``; for each candidate ``late_cosine``, ``early_cosine`` and ``lowest_cosine``.
    """
    horizon = max((member.steps for member in run.members.values()), default=0)
    by_estimator: dict[str, list[Candidate]] = {}
    for candidate in run.candidates.values():
        if any(_readings(member) for member in candidate.members.values()):
            by_estimator.setdefault(estimator_of(candidate.config), []).append(candidate)
    if not by_estimator:
        raise NoEvidence("No evaluation has recorded the cosine of its gradient with the exact one.")
    found = {
        name: direction([m for c in some for m in c.members.values()], horizon) for name, some in by_estimator.items()
    }
    late = {name: one for name, one in found.items() if one.num_seeds}
    if not late:
        raise NoEvidence(f"No cosine was recorded from step {_late_from(horizon):,.0f} on.")
    values: dict[str, Value] = {}
    for name, one in found.items():
        values |= {f"{quantity}_{name}": value for quantity, value in _quantities(one).items()}
    for candidate in (c for some in by_estimator.values() for c in some):
        mine = _quantities(direction(candidate.members.values(), horizon))
        values |= {value_of(candidate, quantity): value for quantity, value in mine.items()}
    words = {one.word for one in late.values()}
    verdict: Verdict = "fail" if words & {"wrong", "off"} else "warn" if "open" in words else "pass"
    threshold = {f"late_cosine_{name}": RIGHT for name in late}
    return answer(verdict, _summary(late, found, horizon), values, threshold, _plots(by_estimator, late, horizon))


def estimator_of(config: Mapping[str, Any]) -> str:
    """What a config trains by: ``aep_dyadic``, or with a switch on the way ``ep_then_aep_dyadic``."""
    name = str(config.get("estimator", "unknown"))
    return f"{config['warm_estimator']}_then_{name}" if config.get("warm_switch_step") else name


def direction(members: Iterable[Member], horizon: int) -> Direction:
    """Of members of one estimator: a seed's figure is the mean over its members, a member's that of its readings."""
    early: dict[int, list[float]] = {}
    late: dict[int, list[float]] = {}
    lowest = math.inf
    for member in members:
        readings = _readings(member)
        first = [cosine for step, cosine in readings if step <= horizon // _PARTS]
        last = [cosine for step, cosine in readings if step >= _late_from(horizon)]
        for kept, some in ((early, first), (late, last)):
            if some:
                kept.setdefault(member.seed, []).append(fmean(some))
        lowest = min([lowest, *last])
    return Direction(_over_seeds(early), _over_seeds(late), lowest if late else math.nan, len(late))


def _late_from(horizon: int) -> int:
    return horizon - horizon // _PARTS


def _readings(member: Member) -> list[tuple[int, float]]:
    """Steps and cosines, where one was recorded and is finite."""
    found = ((report.step, report.metrics.get(_COSINE, math.nan)) for report in member.reports)
    return [(step, float(cosine)) for step, cosine in found if math.isfinite(cosine)]


def _over_seeds(by_seed: Mapping[int, Sequence[float]]) -> Interval:
    return mean_interval([fmean(some) for some in by_seed.values()])


def _quantities(one: Direction) -> dict[str, Value]:
    return {"late_cosine": one.late, "early_cosine": one.early, "lowest_cosine": one.lowest}


_SAID: Mapping[Word, str] = {
    "wrong": "point the wrong way",
    "off": "do not point the right way",
    "open": "cannot be told by these seeds",
    "right": "point the right way",
}


def _summary(late: Mapping[str, Direction], found: Mapping[str, Direction], horizon: int) -> str:
    """One clause for each of the words, the worst first, the estimators in it by their cosine."""
    clauses = []
    for word, meaning in _SAID.items():
        some = sorted((one.late.value, name) for name, one in late.items() if one.word == word)
        if some:
            named = " and ".join(f"{name} {shown(late[name].late)}" for _, name in some)
            clauses.append(f"by {named} {meaning}")
    lost = [name for name in found if name not in late]
    missing = f" There is no reading so late of {', '.join(lost)}." if lost else ""
    seeds = max(one.num_seeds for one in late.values())
    how = f"95% by Student's t over up to {seeds} seeds" if seeds > 1 else "of one seed"
    said = f"From step {_late_from(horizon):,.0f} on gradients {'; '.join(clauses)}.{missing}"
    return (
        f"{said} Mean cosine with the exact one, all weights but the head's, {how}: right from {RIGHT:g} on "
        f"(26 degrees), wrong below {WRONG:g} (60)."
    )


def _plots(
    by_estimator: Mapping[str, Sequence[Candidate]], late: Mapping[str, Direction], horizon: int
) -> tuple[Plot, ...]:
    lines = {"right": RIGHT, "wrong": WRONG, "orthogonal": 0.0}
    over_steps = tuple(_curve(name, some) for name, some in by_estimator.items())
    curves = Plot(
        "Direction of the gradient in training (band: lowest to highest seed)",
        "optimiser steps",
        "cosine with the exact gradient",
        series=over_steps,
        lines=lines,
    )
    names = sorted(late, key=lambda name: late[name].late.value)
    means = Plot(
        f"Direction of the gradient from step {_late_from(horizon):,.0f} on, mean and 95% over seeds",
        "estimator",
        "cosine with the exact gradient",
        "points",
        (Series.of("mean over seeds", [late[name].late for name in names]),),
        lines=lines,
        x_ticks=tuple(names),
    )
    return curves, means


def _curve(name: str, candidates: Sequence[Candidate]) -> Series:
    """Mean over members at each step, from the lowest to the highest."""
    at: dict[int, list[float]] = {}
    for member in (m for c in candidates for m in c.members.values()):
        for step, cosine in _readings(member):
            at.setdefault(step, []).append(cosine)
    steps = sorted(at)
    return Series(
        name,
        tuple(steps),
        tuple(fmean(at[step]) for step in steps),
        tuple(min(at[step]) for step in steps),
        tuple(max(at[step]) for step in steps),
    )
