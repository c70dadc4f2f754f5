"""The best value so far of members, and two of them beside each other, step by step and seed by seed."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.stats.interval import Interval, mean_interval


@dataclass(frozen=True)
class BestSoFar:
    """The best value so far of one member, in the objective's own sign.

    Attributes:
        places: where it reported, rising, from the first value on.
        keeps: whether the last value holds from there on, as that of a member that stopped early does.
    """

    places: tuple[float, ...]
    values: tuple[float, ...]
    keeps: bool

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]], sign: float, keeps: bool) -> BestSoFar:
        """Of (place, value as reported); a value that is not finite, and a place that is no further, add nothing."""
        best, curve = math.inf, dict[float, float]()
        last = -math.inf
        for place, value in points:
            best = min(best, sign * value) if math.isfinite(value) else best
            if math.isfinite(best) and last < place < math.inf:
                curve[place] = sign * best
                last = place
        return cls(tuple(curve), tuple(curve.values()), keeps)

    @property
    def end(self) -> float:
        """The furthest place with a value; infinite for one that keeps it."""
        return math.inf if self.keeps else self.places[-1]

    def at(self, place: float) -> float:
        """The best up to a place; NaN before the first and after the end."""
        if not self.places or place < self.places[0] or place > self.end:
            return math.nan
        return self.values[bisect_right(self.places, place) - 1]

    def between(self, place: float) -> float:
        """As `at`, but on a straight line between two reports."""
        after = bisect_left(self.places, place)
        if math.isnan(self.at(place)) or after == len(self.places) or self.places[after] == place:
            return self.at(place)
        (left, right), (low, high) = self.places[after - 1 : after + 1], self.values[after - 1 : after + 1]
        return low + (high - low) * (place - left) / (right - left)


@dataclass(frozen=True)
class Point:
    """One side less the other in what was best by a step.

    Attributes:
        differences: of the pairs that have both.
        mean: of them, with a pointwise Student's t interval; NaN ends for one pair.
    """

    step: int
    differences: tuple[float, ...]
    mean: Interval


def differences(pairs: Sequence[tuple[BestSoFar, BestSoFar]], steps: Iterable[int], level: float = 0.95) -> list[Point]:
    """The first of each pair less the second, at every step at which some pair has both."""
    points = []
    for step in steps:
        values = tuple(d for one, other in pairs if not math.isnan(d := one.at(step) - other.at(step)))
        if values:
            points.append(Point(step, values, mean_interval(values, level)))
    return points
