"""The best of k seeds: its expectation, the chance that one of them succeeds, and the line between good and bad seeds.

Standard library only; lower is better.

Source: N. Otsu, IEEE Trans. SMC 9 (1979), 62-66 (the split).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from analysis.stats.interval import Interval


def expected_min(values: Sequence[float], k: int) -> float:
    """Unbiased estimate of the expected minimum of k seeds: sum_i x_(i) C(n - i, k - 1) / C(n, k), i from 1.

    It is the mean of the minimum over all subsets of k values; +inf counts where a subset has nothing else. Raises
    ValueError for a NaN, and unless k is between 1 and the number of values.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} of {n} values: the best of k takes 1 to {n}")
    if any(map(math.isnan, values)):
        raise ValueError("expected_min takes no NaN")
    total = math.comb(n, k)
    smallest = sorted(values)[: n - k + 1]
    return math.fsum(value * (math.comb(n - i, k - 1) / total) for i, value in enumerate(smallest, 1))


def expected_min_interval(
    values: Sequence[float], k: int, level: float = 0.95, num: int = 2000, seed: int = 0
) -> Interval:
    """`expected_min` with its percentile bootstrap interval, a function of the set of values and of ``seed``.

    With five seeds such intervals cover less than they say (Colas 2018, arXiv 1806.08295), and never reach below the
    best value seen: a description of what was seen rather than a test.
    """
    ordered, rng = sorted(values), random.Random(seed)
    value = expected_min(ordered, k)  # refuses what cannot be resampled
    draws = sorted(expected_min(rng.choices(ordered, k=len(ordered)), k) for _ in range(num))
    out = int(num * (1.0 - level) / 2.0)
    return Interval(value, draws[out], draws[num - 1 - out])


def success_probability(successes: int, failures: int, k: int, a: float = 0.5, b: float = 0.5) -> float:
    """Probability that one of k new seeds succeeds: 1 - prod_{j<k} (b + f + j) / (a + b + s + f + j).

    The mean of 1 - (1 - p)^k under the Beta(a + s, b + f) that the seeds leave of a Beta(a, b) prior (Jeffreys').
    """
    n = successes + failures
    return 1.0 - math.prod((b + failures + j) / (a + b + n + j) for j in range(k))


SEPARATED = 0.8
"""Share of variance between two groups, from which on values may count as two groups: a normal distribution cut in two
has 0.64, a uniform one 0.75. Few values need more: four normal draws fall apart so in 74% of cases, eight in 32%,
sixteen in 7%."""


class _Split(NamedTuple):
    """Two classes of values.

    Attributes:
        threshold: halfway between the nearest members of the two classes; the lower class is at or below it.
        separation: between-class over total variance, 0 to 1.
    """

    threshold: float
    separation: float


def otsu(values: Sequence[float]) -> _Split | None:
    """The cut with the largest between-class variance (Otsu 1979), over all cuts between different values.

    The lowest of equal ones. None for fewer than four values, or if all are equal. O(n log n).
    """
    if not all(map(math.isfinite, values)):
        raise ValueError("otsu takes finite values")
    ordered, n = sorted(values), len(values)
    if n < 4 or ordered[0] == ordered[-1]:
        return None
    low, width = ordered[0], ordered[-1] - ordered[0]
    scaled = [(value - low) / width for value in ordered]  # neither squares nor sums over- or underflow
    mean = fmean(scaled)
    total = math.fsum((x - mean) ** 2 for x in scaled)
    best, cut, below = -1.0, 0, 0.0
    for i in range(1, n):
        below += scaled[i - 1] - mean
        if scaled[i] > scaled[i - 1] and (between := below * below * n / (i * (n - i))) > best:
            best, cut = between, i
    left, right = ordered[cut - 1], ordered[cut]
    middle = left + 0.5 * (right - left)
    return _Split(middle if middle < right else left, min(1.0, best / total))


def best_of_k(
    values: Sequence[float], lost: int, k: int, threshold: float, success_value: float, failure_value: float
) -> float:
    """Expected value of the best of k new seeds, which find the good minimum or do not: P q + (1 - P) q_fail.

    P is `success_probability`, q the mean of the seeds that succeeded.

    Args:
        values: of the seeds that ended; those at or below ``threshold`` succeeded.
        lost: seeds that failed or diverged; failures as well.
        k: how many seeds the best will be taken of.
        threshold: given, or that of `otsu` over all candidates.
        success_value: q where no seed of its own succeeded, such as the mean success of all candidates.
        failure_value: q_fail.
    """
    if any(map(math.isnan, values)):
        raise ValueError("best_of_k takes no NaN; a lost seed is counted in `lost`")
    good = [value for value in values if value <= threshold]
    probability = success_probability(len(good), len(values) - len(good) + lost, k)
    value = fmean(good) if good else success_value
    return probability * value + (1.0 - probability) * failure_value
