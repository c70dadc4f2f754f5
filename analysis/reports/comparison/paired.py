"""Numbers of a comparison beside its claim: differences along the curves, and how many pairs would be enough. Pure.

What it is not: a test. The band is pointwise and looks at every step; the verdict rests on one look at the end.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.stats.interval import Interval, mean_interval
from analysis.stats.student import t_quantile

Curve = Sequence[tuple[int, float]]
"""(step, value as reported)."""

POWER = 0.8
MAX_PAIRS = 1000
"""Beyond so many pairs a sample size says only that nobody will run it."""


@dataclass(frozen=True)
class Point:
    """B minus A in what was best by a step.

    Attributes:
        step: optimiser steps.
        differences: of each seed, in the order given.
        mean: of them, with a pointwise Student's t interval; NaN ends for one seed.
    """

    step: int
    differences: tuple[float, ...]
    mean: Interval


def best_so_far(curve: Curve, mode: str) -> list[tuple[int, float]]:
    """The curve of the best value yet, by step; values that are not finite are passed over."""
    better = min if mode == "min" else max
    best: list[tuple[int, float]] = []
    for step, value in sorted(curve):
        if math.isfinite(value):
            best.append((step, better(value, best[-1][1]) if best else value))
    return best


def by_step(
    a: Mapping[int, Curve], b: Mapping[int, Curve], seeds: Sequence[int], mode: str, alpha: float
) -> list[Point]:
    """Differences b - a of the best so far, from the first step at which all pairs have a value.

    A curve that ended keeps its best, as a seed that its patience stopped does.

    Args:
        a, b: curves by seed.
        seeds: pairs to take; those without a finite value on both sides are left out.
        mode: ``min`` or ``max``.
        alpha: the intervals are at 1 - alpha.
    """
    pairs = [(best_so_far(a.get(seed, ()), mode), best_so_far(b.get(seed, ()), mode)) for seed in seeds]
    pairs = [(one, other) for one, other in pairs if one and other]
    if not pairs:
        return []
    first = max(curve[0][0] for pair in pairs for curve in pair)
    steps = sorted({step for pair in pairs for curve in pair for step, _ in curve if step >= first})
    differences = {step: tuple(_at(other, step) - _at(one, step) for one, other in pairs) for step in steps}
    return [Point(step, of_pairs, mean_interval(of_pairs, 1.0 - alpha)) for step, of_pairs in differences.items()]


def pairs_needed(difference: Interval, num_pairs: int, alpha: float) -> int | None:
    """Pairs with which a paired t-test finds the observed difference with power 0.8, were it the true one.

    The smallest n >= (t_{1 - alpha/2, n - 1} + t_{0.8, n - 1})^2 (s / d)^2 (Zar, Biostatistical Analysis, section on
    sample size in the one-sample t-test). The observed difference is itself uncertain, so this is a rough figure.

    Args:
        difference: mean of the pairs with its t interval at 1 - alpha, which tells the standard deviation.
        num_pairs: so far.
        alpha: two-sided.

    Returns:
        None without an interval or a difference, and for more than 1000.
    """
    if num_pairs < 2 or not math.isfinite(difference.half_width) or not difference.value:
        return None
    spread = difference.half_width * math.sqrt(num_pairs) / t_quantile(1.0 - alpha / 2.0, num_pairs - 1.0)
    ratio = (spread / difference.value) ** 2
    for n in range(2, MAX_PAIRS + 1):
        if n >= (t_quantile(1.0 - alpha / 2.0, n - 1.0) + t_quantile(POWER, n - 1.0)) ** 2 * ratio:
            return n
    return None


def _at(curve: Curve, step: int) -> float:
    return curve[bisect_right(curve, step, key=lambda point: point[0]) - 1][1]
