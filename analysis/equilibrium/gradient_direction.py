"""Does the gradient of each estimator point the right way, late in training?

What it is: each evaluation records the cosine of the estimator's gradient and the exact one on a few fixed sequences,
all weights but the head's. Early in training the field contracts and every estimator is right, and a single late
reading may lie anywhere, so a seed is judged by the mean over all its readings in the last third of the run's steps.
An estimator is right where it is so in every seed; one of several candidates has for each seed the mean of their
members. A cosine is bounded and seeds are few, so what is told is how many seeds, and the lowest and the highest.
What it is not: a comparison of losses, which the ranking is. A wrong direction shows in the loss only later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.language.finishers import value_of
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate, Member, Run

RIGHT = 0.9
"""Mean cosine from which on a seed points the right way, 26 degrees: moments when nothing settles are in it."""
WRONG = 0.5
"""Mean over seeds below which an estimator points the wrong way, more than 60 degrees off."""
_COSINE = "cosine"
_PARTS = 3
"""Of the run's steps: readings in the first are early, those in the last late."""

Word = Literal["wrong", "off", "partly", "right"]


@dataclass(frozen=True)
class Direction:
    """Where the gradients of one estimator, or of one candidate, point.

    Attributes:
        early, late: mean cosine of each seed that has such readings, the lowest first.
        lowest: of single late readings.
        num_lost: members that diverged or failed.
    """

    early: tuple[float, ...]
    late: tuple[float, ...]
    lowest: float
    num_lost: int

    @property
    def mean(self) -> float:
        """Over the late figures of seeds, of which there is one at the least."""
        return fmean(self.late)

    @property
    def num_right(self) -> int:
        """Seeds that point the right way."""
        return sum(cosine >= RIGHT for cosine in self.late)

    @property
    def word(self) -> Word:
        """What is to be said of it."""
        if self.mean < WRONG:
            return "wrong"
        return "off" if not self.num_right else "partly" if self.num_right < len(self.late) else "right"


@diagnostic("Direction of the gradient late in training, by estimator", needs="records")
def gradient_direction(run: Run) -> Finding:
    """Return a finding with values ``late_cosine_<estimator>`` with Student's t over seeds, within the bounds of a
    cosine; for each candidate ``late_cosine`` and ``early_cosine`` alike, ``lowest_cosine`` of single late readings,
    and ``seeds_right``.
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
    late = {name: one for name, one in found.items() if one.late}
    if not late:
        raise NoEvidence(f"No cosine was recorded from step {_late_from(horizon):,.0f} on.")
    values: dict[str, Value] = {}
    values |= {f"late_cosine_{name}": _over_seeds(one.late) for name, one in late.items()}
    for candidate in (c for some in by_estimator.values() for c in some):
        mine = _quantities(direction(candidate.members.values(), horizon))
        values |= {value_of(candidate, quantity): value for quantity, value in mine.items()}
    words = {one.word for one in late.values()}
    verdict: Verdict = "fail" if words & {"wrong", "off"} else "warn" if "partly" in words else "pass"
    threshold = {f"late_cosine_{name}": RIGHT for name in late}
    return answer(verdict, _summary(late, found, horizon), values, threshold, _plots(by_estimator, late, horizon))


def estimator_of(config: Mapping[str, Any]) -> str:
    """What a config trains by: ``aep_dyadic``, or with a switch on the way ``ep_then_aep_dyadic``."""
    name = str(config.get("estimator", "unknown"))
    return f"{config['warm_estimator']}_then_{name}" if config.get("warm_switch_step") else name


def direction(members: Iterable[Member], horizon: int) -> Direction:
    """Of members of one estimator: a seed's figure is the mean over its members, a member's that of its readings."""
    some = list(members)
    early: dict[int, list[float]] = {}
    late: dict[int, list[float]] = {}
    lowest = math.inf
    for member in some:
        readings = _readings(member)
        first = [cosine for step, cosine in readings if step <= horizon // _PARTS]
        last = [cosine for step, cosine in readings if step >= _late_from(horizon)]
        for kept, cosines in ((early, first), (late, last)):
            if cosines:
                kept.setdefault(member.seed, []).append(fmean(cosines))
        lowest = min([lowest, *last])
    num_lost = sum(member.lost_stage is not None for member in some)
    return Direction(_by_seed(early), _by_seed(late), lowest if late else math.nan, num_lost)


def _late_from(horizon: int) -> int:
    return horizon - horizon // _PARTS


def _readings(member: Member) -> list[tuple[int, float]]:
    """Steps and cosines, where one was recorded and is finite."""
    found = ((report.step, report.metrics.get(_COSINE, math.nan)) for report in member.reports)
    return [(step, float(cosine)) for step, cosine in found if math.isfinite(cosine)]


def _by_seed(members: Mapping[int, Sequence[float]]) -> tuple[float, ...]:
    return tuple(sorted(fmean(some) for some in members.values()))


def _quantities(one: Direction) -> dict[str, Value]:
    late, early = _over_seeds(one.late), _over_seeds(one.early)
    seeds_right = float(one.num_right) if one.late else math.nan
    return {"late_cosine": late, "early_cosine": early, "lowest_cosine": one.lowest, "seeds_right": seeds_right}


def _over_seeds(cosines: Sequence[float]) -> Interval:
    """The mean with Student's t, which knows no bounds, within those of a cosine."""
    # Rounding may leave a cosine a little above 1 as well. In this order of arguments NaN stays NaN.
    return Interval(*(min(max(number, -1.0), 1.0) for number in mean_interval(cosines)))


_SAID: Mapping[Word, str] = {
    "wrong": "point the wrong way",
    "off": "do not point the right way",
    "partly": "point the right way in some seeds only",
    "right": "point the right way",
}


def _summary(late: Mapping[str, Direction], found: Mapping[str, Direction], horizon: int) -> str:
    """One clause for each of the words, the worst first, the estimators in it by their cosine."""
    clauses = []
    for word, meaning in _SAID.items():
        some = sorted((one.mean, name) for name, one in late.items() if one.word == word)
        if some:
            *most, last = [_told(name, late[name]) for _, name in some]
            clauses.append(f"by {', '.join(most)}{' and ' if most else ''}{last} {meaning}")
    lost = [name for name in found if name not in late]
    missing = f" There is no reading so late of {', '.join(lost)}." if lost else ""
    said = f"From step {_late_from(horizon):,.0f} on, gradients {'; '.join(clauses)}.{missing}"
    return (
        f"{said} Numbers are the mean cosine with the exact gradient, all weights but the head's, and the lowest and "
        f"highest seed: right is {RIGHT:g} (26 degrees) in each, wrong a mean below {WRONG:g} (60)."
    )


def _told(name: str, one: Direction) -> str:
    """``ep 0.28 (0.05 to 0.48; 1 lost)``."""
    ends = f"{one.late[0]:.2f} to {one.late[-1]:.2f}" if len(one.late) > 1 else "one seed"
    lost = f"; {one.num_lost} lost" if one.num_lost else ""
    return f"{name} {one.mean:.2f} ({ends}{lost})"


def _plots(
    by_estimator: Mapping[str, Sequence[Candidate]], late: Mapping[str, Direction], horizon: int
) -> tuple[Plot, ...]:
    lines = {"right": RIGHT, "wrong": WRONG, "orthogonal": 0.0}
    over_steps = tuple(_curve(name, some) for name, some in by_estimator.items())
    curves = Plot(
        "Direction of the gradient in training (band: lowest to highest seed)",
        "optimiser steps",
        "cosine with the exact one",
        series=over_steps,
        lines=lines,
    )
    names = sorted(late, key=lambda name: late[name].mean)
    of_seeds = [Interval(late[name].mean, late[name].late[0], late[name].late[-1]) for name in names]
    means = Plot(
        f"Direction from step {_late_from(horizon):,.0f} on: mean, lowest and highest seed",
        "estimator",
        "cosine with the exact one",
        "points",
        (Series.of("seeds", of_seeds),),
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
