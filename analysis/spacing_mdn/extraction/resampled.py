"""A block bootstrap: how far coefficients and shares would move with other stretches of the same series.

What moves coefficients of least squares are the residuals: the sums of residual times regressor over blocks of adjacent
targets are drawn with replacement, and each draw moves the coefficients by the inverse of the normal equations. No draw
repeats the lines themselves, which would look like noise. Sources: D. N. Politis and J. P. Romano, A circular
block-resampling procedure for stationary data, in Exploring the Limits of Bootstrap (1992), 263-270 (blocks); P. Kline
and A. Santos, A score based approach to wild bootstrap inference, Journal of Econometric Methods 1 (2012), 23-41.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from analysis.stats.interval import Interval
from trainables.arrays import Array

NUM = 1000
_LONGEST = 128  # targets of a block, unless there would be too many of them
_FEWEST, _MOST = 32, 256  # blocks of a series
_SEED = 31
NO_VARIANCE = 1e-9
"""Sum of squares of a series about its mean, below which it is constant."""


def blocks(number: int) -> Iterator[slice]:
    """Blocks of adjacent targets that cover ``number`` of them; all but the last are equally long."""
    length = block_length(number)
    for begin in range(0, number, length):
        yield slice(begin, min(begin + length, number))


def block_length(number: int) -> int:
    """Targets of a block."""
    return max(min(_LONGEST, -(-number // _FEWEST)), -(-number // _MOST))


def drawn(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(`NUM`, ...): sums of ``scores`` (blocks, ...) over blocks drawn with replacement, less the sum over all."""
    sums: NDArray[np.float64] = np.tensordot(_counts(len(scores)) - 1.0, scores, axes=1)
    return sums


def percentiles(value: float, draws: Array) -> Interval:
    """``value`` with the middle 95% of its draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def ratio(above: Array, below: Array) -> Interval:
    """The sum of ``above`` over that of ``below``, two series of the same targets."""
    sums = np.stack([[series[block].sum() for block in blocks(len(series))] for series in (above, below)], axis=1)
    draws = _counts(len(sums)) @ sums
    return percentiles(float(above.sum() / below.sum()), draws[:, 0] / draws[:, 1])


def share_of_variance(series: Array, predicted: Array) -> Interval:
    """1 less what a prediction leaves of the variance of ``series``, negative if it does harm; 0 of a constant."""
    about = np.square(series - series.mean())
    if about.sum() < NO_VARIANCE:
        return Interval(0.0, 0.0, 0.0)
    return ratio(about - np.square(series - predicted), about)


def _counts(number: int) -> Array:
    """(`NUM`, blocks): how often each of ``number`` blocks is drawn."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(number, np.full(number, 1.0 / number), size=NUM).astype(np.float64)
