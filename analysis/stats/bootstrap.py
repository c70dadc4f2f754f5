"""Intervals of means and other statistics over sampled windows, by a block bootstrap.

Percentile intervals from a circular block bootstrap. Windows are in order of height and neighbours read overlapping
stretches of spacings, so runs of adjacent windows are drawn together, and every window is drawn equally often. They say
how far a figure of one checkpoint would move with other windows, and nothing about another training.

Percentile intervals of few blocks are somewhat too narrow: with 32 blocks of 8 they cover a mean in about 94%.

Source: D. N. Politis and J. P. Romano, A circular block-resampling procedure for stationary data, in Exploring the
Limits of Bootstrap (1992), 263-270.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from analysis.stats.interval import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 1 << 20  # drawn blocks that are held at once


def mean_interval(
    values: NDArray[np.float64], block: int = 8, num: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean of a series of (n,) values in order of height, one for each window, and its interval.

    Bounds are NaN with fewer than two values or one that is not finite, and the mean as well with none.

    Args:
        values: see above.
        block: adjacent values that are drawn together; at most half of them are, so that two blocks differ.
        num: resamples.
        seed: of the draws; the same seed gives the same interval.
        level: coverage aimed at.
    """
    import numpy as np

    if values.ndim != 1:
        raise ValueError(f"mean_interval: values of shape {values.shape}; allowed is (n,)")
    length = _block_length(len(values), block, num, level)
    value = float(np.mean(values)) if len(values) else math.nan
    if len(values) < 2 or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    # A resample is a draw of blocks, and its mean that of their means: no index of a single value is needed.
    sums = np.cumsum(np.concatenate([[0.0], values - value, values[: length - 1] - value]))
    block_means = (sums[length:] - sums[:-length]) / length + value
    rng = np.random.default_rng(seed)
    blocks = -(-len(values) // length)
    rows = max(1, _CHUNK // blocks)
    means = np.concatenate(
        [
            block_means[rng.integers(len(values), size=(min(rows, num - done), blocks))].mean(axis=1)
            for done in range(0, num, rows)
        ]
    )
    return _percentiles(value, means, level)


def interval(
    statistic: Callable[[NDArray[Any]], float],
    values: NDArray[Any],
    block: int = 8,
    num: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Any statistic of (n, ...) values of windows, with its interval; see `mean_interval` for arguments and bounds.

    Bounds are NaN too if the statistic of a resample is not finite. With no window it is not called, and all is NaN.
    """
    import numpy as np

    if values.ndim < 1:
        raise ValueError("interval: values is a single number; allowed is (n, ...)")
    length = _block_length(len(values), block, num, level)
    value = float(statistic(values)) if len(values) else math.nan
    if len(values) < 2 or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    within, blocks = np.arange(length), -(-len(values) // length)
    resampled = np.empty(num)
    for draw in range(num):
        chosen = (rng.integers(len(values), size=(blocks, 1)) + within) % len(values)
        resampled[draw] = statistic(values[chosen.ravel()[: len(values)]])
    return _percentiles(value, resampled, level)


def _block_length(size: int, block: int, num: int, level: float) -> int:
    if block < 1 or num < 1 or not 0.0 < level < 1.0:
        raise ValueError(
            f"bootstrap: block = {block}, num = {num}, level = {level}; allowed: block and num from 1 on, 0 < level < 1"
        )
    return max(1, min(block, size // 2))


def _percentiles(value: float, resampled: NDArray[np.float64], level: float) -> Interval:
    import numpy as np

    if not np.isfinite(resampled).all():
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(resampled, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return Interval(value, float(low), float(high))
