"""What seeds of one config are worth: how often they succeed, and the expected best of k. Pure; lower is better.

For k from 1 to 8; rows for k beyond the seeds at hand hold only the success model, where a line between good and bad
seeds is known at all. No score to promote by (that compares candidates).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal

from analysis.stats.best_of_k import (
    SEPARATED,
    best_of_k,
    expected_min_interval,
    otsu,
    success_probability,
)
from analysis.stats.interval import Interval, proportion_interval

MAX_K = 8
BY_CHANCE = 0.1
"""Share of equally many normal draws that may fall apart as clearly, at most."""

_CHANCE_DRAWS = 2000


@dataclass(frozen=True)
class Line:
    """What separates success from failure: at or below ``value`` a seed has succeeded.

    Attributes:
        separation: of a found line, between-group over total variance.
        chance: of a found line, share of equally many draws from one normal distribution that fall apart as clearly.
    """

    value: float
    source: Literal["given", "found"]
    separation: float = math.nan
    chance: float = math.nan


@dataclass(frozen=True)
class _BestOf:
    """The best of k seeds.

    Attributes:
        value: unbiased estimate of its expectation with a bootstrap interval, which never reaches below the best seed
            seen; NaN where k is more than the seeds at hand.
        success: probability that one of k new seeds succeeds; NaN without a line.
        model: expectation by the success model; NaN without a line.
    """

    k: int
    value: Interval
    success: float
    model: float


@dataclass(frozen=True)
class Seeds:
    """All there is to say of the values of some seeds, lost ones included.

    Attributes:
        successes: at or below the line; 0 without one.
        rate: of success, with Wilson's interval; from 0 to 1 without a line.
        line: None where none was given and the values do not fall into two groups.
        best_of: k from 1 to 8; empty where every seed was lost.
    """

    num: int
    lost: int
    successes: int
    rate: Interval
    line: Line | None
    best_of: tuple[_BestOf, ...]


def summarise(values: Sequence[float], lost: int, threshold: float | None = None) -> Seeds:
    """Success rate and best of k. A lost seed is a failure, and counts as the worst value of the others.

    ``threshold`` divides success from failure; None looks for two groups. Raises ValueError for what is not finite.
    """
    if not all(map(math.isfinite, [*values, 0.0 if threshold is None else threshold])):
        raise ValueError(f"values={list(values)!r}, threshold={threshold!r}: they take finite numbers")
    line = find_line(values) if threshold is None else Line(threshold, "given")
    num = len(values) + lost
    successes = sum(value <= line.value for value in values) if line else 0
    rate = proportion_interval(successes, num) if line else proportion_interval(0, 0)
    best_of = tuple(_best_of(values, lost, k, line) for k in range(1, MAX_K + 1)) if values else ()
    return Seeds(num, lost, successes, rate, line, best_of)


def find_line(values: Sequence[float]) -> Line | None:
    """Otsu's cut where its two sides are groups: `SEPARATED`, and more than `BY_CHANCE`. None for under four values."""
    split = otsu(values)
    if split is None or split.separation < SEPARATED:
        return None
    separations = _separations_of_normal(len(values))
    chance = sum(s >= split.separation for s in separations) / len(separations)
    return Line(split.threshold, "found", split.separation, chance) if chance <= BY_CHANCE else None


@cache
def _separations_of_normal(num: int) -> tuple[float, ...]:
    """How clearly values from a single normal distribution fall apart: what a found line has to be held against."""
    rng = random.Random(num)
    splits = [otsu([rng.gauss(0.0, 1.0) for _ in range(num)]) for _ in range(_CHANCE_DRAWS)]
    return tuple(split.separation for split in splits if split)


def _best_of(values: Sequence[float], lost: int, k: int, line: Line | None) -> _BestOf:
    filled = [*values, *([max(values)] * lost)]
    success = model = math.nan
    value = expected_min_interval(filled, k) if k <= len(filled) else Interval(math.nan, math.nan, math.nan)
    if line:
        good = sum(x <= line.value for x in values)
        success = success_probability(good, len(filled) - good, k)
        bad = [x for x in filled if x > line.value]
        # Where one kind was never seen, the nearest that can be said of it: a success is at the line, a failure is no
        # better than the worst.
        model = best_of_k(values, lost, k, line.value, line.value, fmean(bad) if bad else max(filled))
    return _BestOf(k, value, success, model)
