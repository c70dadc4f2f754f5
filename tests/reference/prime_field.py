"""One row of the features of exact prime lines, once more: from the zeros that are known by then, and nothing else.

What it is not: fast, or made of the same parts. S comes from Riemann and Siegel's theta and not from the smooth count,
the sum over primes is a loop over integers, and the field is inverted by interpolation. Since it is handed no zero
beyond the last known one, it cannot see the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from flint import acb

from trainables.arrays import Array

LAGS = 32
STEP = 1 / 16
CELLS = 64
STEEPEST_FALL = 0.05


def argument(zero: float, number: int) -> float:
    """S at the zero of this number, halfway up its jump: number - 1/2 - theta / pi - 1."""
    theta = float((acb(0.25, zero / 2.0).lgamma().imag - zero / 2.0 * acb(math.pi).log().real).mid())
    return number - 0.5 - theta / math.pi - 1.0


def told(t: float, bound: int) -> float:
    """-sum of sin(t ln q) Lambda(q) / (pi sqrt(q) ln q) over the integers q up to ``bound``."""
    return -sum(share * math.sin(t * math.log(q)) / (math.pi * math.sqrt(q)) for q, share in _prime_powers(bound))


def _prime_powers(bound: int) -> list[tuple[int, float]]:
    """Each q = p^k up to ``bound`` with Lambda(q) / ln q = 1/k."""
    found = []
    for q in range(2, bound + 1):
        p = next(d for d in range(2, q + 1) if q % d == 0)
        power, k = p, 1
        while power < q:
            power, k = power * p, k + 1
        if power == q:
            found.append((q, 1.0 / k))
    return found


def residuals(zeros: Sequence[float], first: int, bound: int) -> Array:
    """R at the last zeros, latest first; ``first`` is the number of the first of ``zeros``."""
    last = range(len(zeros) - 1, len(zeros) - 1 - LAGS, -1)
    return np.array([argument(zeros[i], first + i) - told(zeros[i], bound) for i in last])


def row(zeros: Sequence[float], first: int, bound: int, regression: Array) -> Array:
    """R_n, s* - 1, zhat - 1, five log slopes about s*, and 2 (zeta(s) - s) at s = .25, .5, ..., 3.

    Args:
        zeros: at least `LAGS` ordinates that follow one another, the last the latest that is known.
        first: number of the first of them, from 1.
        bound: of the powers of primes.
        regression: intercept and the coefficients of R at the last zeros.
    """
    now = zeros[-1]
    left = residuals(zeros, first, bound)
    per_spacing = 2.0 * math.pi / math.log(now / (2.0 * math.pi))
    here = told(now, bound)
    zeta = [s + told(now + s * per_spacing, bound) - here for s in STEP * np.arange(CELLS + 1)]
    rises = [max(b - a, STEEPEST_FALL * STEP) for a, b in pairwise(zeta)]
    zhat = float(regression[0] + regression[1:] @ left)
    level = np.concatenate([[0.0], np.cumsum(rises)])
    s = float(np.interp(zhat, level, STEP * np.arange(CELLS + 1)))
    cell = min(int(s / STEP), CELLS - 1)
    slopes = [math.log(rises[min(max(cell + beside, 0), CELLS - 1)] / STEP) for beside in (-4, -2, 0, 2, 4)]
    ahead = [2.0 * (zeta[j] - j * STEP) for j in range(4, 49, 4)]
    return np.array([left[0], s - 1.0, zhat - 1.0, *slopes, *ahead])
