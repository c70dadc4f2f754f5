"""Numbers of a comparison beside its claim: differences along the curves, and how many pairs would be enough. Pure.

What it is not: a test. The band is pointwise and looks at every step; the verdict rests on one look at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from analysis.search.best_so_far import BestSoFar, Point, differences
from analysis.stats.interval import Interval
from analysis.stats.student import t_quantile

_Curve = Sequence[tuple[int, float]]
"""(step, value as reported)."""

POWER = 0.8
MAX_PAIRS = 1000
"""Beyond so many pairs a sample size says only that it will not be run."""


def by_step(
    a: Mapping[int, _Curve], b: Mapping[int, _Curve], seeds: Sequence[int], mode: str, alpha: float
) -> list[Point]:
    """Differences b - a of the best so far, from the first step at which all pairs have a value.

    A curve that ended keeps its best, as a seed that its patience stopped does. Seeds without a finite value on both
    sides are left out; intervals are at 1 - ``alpha``.
    """
    sign = 1.0 if mode == "min" else -1.0
    pairs = [(_finite(b.get(seed, ())), _finite(a.get(seed, ()))) for seed in seeds]
    pairs = [(one, other) for one, other in pairs if one and other]
    steps = sorted({step for pair in pairs for curve in pair for step, _ in curve})
    sides = [(BestSoFar.of(one, sign, keeps=True), BestSoFar.of(other, sign, keeps=True)) for one, other in pairs]
    return [point for point in differences(sides, steps, 1.0 - alpha) if len(point.differences) == len(sides)]


def _finite(curve: _Curve) -> _Curve:
    return [(step, value) for step, value in sorted(curve) if math.isfinite(value)]


def pairs_needed(difference: Interval, num_pairs: int, alpha: float) -> int | None:
    """Pairs with which a paired t-test finds the observed difference with power 0.8, were it the true one.

    The smallest n >= (t_{1 - alpha/2, n - 1} + t_{0.8, n - 1})^2 (s / d)^2 (Zar, Biostatistical Analysis, section on
    sample size in the one-sample t-test). The observed difference, given with its t interval at 1 - alpha over
    ``num_pairs``, is itself uncertain, so this is a rough figure. None without an interval or a difference, and for
    more than 1000.
    """
    if num_pairs < 2 or not math.isfinite(difference.half_width) or not difference.value:
        return None
    spread = difference.half_width * math.sqrt(num_pairs) / t_quantile(1.0 - alpha / 2.0, num_pairs - 1.0)
    ratio = (spread / difference.value) ** 2
    for n in range(2, MAX_PAIRS + 1):
        if n >= (t_quantile(1.0 - alpha / 2.0, n - 1.0) + t_quantile(POWER, n - 1.0)) ** 2 * ratio:
            return n
    return None
