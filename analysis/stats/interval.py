"""An estimate with its interval, and the two intervals that need no resampling: of a mean and of a proportion.

Source: E. B. Wilson, JASA 22 (1927), 209-212 (proportions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, variance
from typing import NamedTuple

from analysis.stats.student import t_quantile

NORMAL_95 = NormalDist().inv_cdf(0.975)
"""Standard errors on each side of a 95% interval where the normal distribution serves."""


class Interval(NamedTuple):
    """An estimate with the ends of its interval, at 95% unless its owner says otherwise; NaN ends where it has none."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """The interval of the estimate times a factor; a negative one swaps the ends."""
        ends = factor * self.low, factor * self.high
        return Interval(factor * self.value, *(ends if factor >= 0.0 else ends[::-1]))

    @property
    def size(self) -> Interval:
        """Of a difference whose sign is said in words."""
        return self.times(-1.0 if self.value < 0.0 else 1.0)

    @property
    def half_width(self) -> float:
        """Half the distance of the ends."""
        return 0.5 * (self.high - self.low)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean with Student's t interval: exact for independent normal values, at one look.

    No bounds (NaN) from one value or from values that are not finite, all NaN from none.
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(0.5 + 0.5 * level, n - 1.0) * math.sqrt(variance(values) / n)
    return Interval(mean, mean - half, mean + half)


def proportion_interval(successes: float, n: int, level: float = 0.95) -> Interval:
    """A proportion with Wilson's score interval; NaN within (0, 1) for no trial. Half successes (ties) are allowed."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes={successes} of n={n}: it takes 0 to {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    z2 = NormalDist().inv_cdf(0.5 + 0.5 * level) ** 2
    centre = (successes + 0.5 * z2) / (n + z2)
    half = math.sqrt(z2 * (successes * (n - successes) / n + 0.25 * z2)) / (n + z2)
    return Interval(successes / n, max(0.0, centre - half), min(1.0, centre + half))
