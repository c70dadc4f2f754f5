"""Where on the critical line the zeros of a series lie: from their spacings and the log heights of their blocks.

Times come from spacings by inverting the smooth count u(t) = t/2pi (ln(t/2pi) - 1) from the start of each block. With
log heights that were rounded, as class II takes them, a block's start is off by tens of zeros; the lines of the primes
need the gaps between zeros only, so the blocks are laid end to end. With exact log heights the times are ordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainables.arrays import Array

_NEWTON = 6
_FIRST_ORDINATE = 14.134725141734693
"""Of all zeros the lowest; nothing is computed below it, whatever a rounded log height says."""


@dataclass(frozen=True)
class Heights:
    """Of the zeros 0 .. n of a series of n spacings.

    Attributes:
        times: (n + 1,) float64; ordinates if they are exact, else up to a constant.
        counts: (n + 1,) S at the zeros, halfway up its jump; up to a constant unless exact.
        log_height: (n + 1,) ln(t / 2 pi), about the number of spacings in 2 pi units of height.
    """

    times: Array
    counts: Array
    log_height: Array


def smooth_count(times: Array) -> Array:
    """u(t) = t/2pi (ln(t/2pi) - 1); the zeros up to t number u + 7/8 + 1/(48 pi t) + S(t) up to O(t^-3)."""
    turns = times / (2.0 * math.pi)
    count: Array = turns * (np.log(turns) - 1.0)
    return count


def rounded(log_height: Array, step: float) -> Array:
    """Log heights to the nearest multiple of ``step``; as they are if it is 0."""
    if not step:
        return log_height
    to: Array = np.round(log_height / step) * step
    return to


def heights_of(spacings: Array, log_height: Array, block: int, *, exact: bool) -> Heights:
    """Heights of the zeros of a contiguous series.

    Args:
        spacings: (n,).
        log_height: (blocks,) ln(t / 2 pi) of the zero where each block of ``block`` spacings starts.
        block: spacings in a block; the last block may hold fewer.
        exact: take the log heights as they are, and every block's start with them. Otherwise blocks are laid end to
            end, and only their gaps are used.
    """
    lowest = math.log(_FIRST_ORDINATE / (2.0 * math.pi))
    starts = 2.0 * math.pi * np.exp(np.maximum(log_height, lowest))
    number = len(spacings)
    padded = np.ones((len(log_height), block))
    padded.reshape(-1)[:number] = spacings
    # (blocks, block + 1): the smooth count passed since the start of the block, and the heights at which it is.
    passed = np.concatenate([np.zeros((len(padded), 1)), np.cumsum(padded, axis=1)], axis=1)
    grid = _heights_at(starts, passed)
    if exact:
        times = np.append(grid[:, :-1].reshape(-1)[:number], grid.reshape(-1)[_last(number, block)])
        smooth = smooth_count(times) + 7.0 / 8.0 + 1.0 / (48.0 * math.pi * times)
        index = np.arange(number + 1)
        # The number of the first zero is not told: S is less than its jumps in the mean.
        first = round(float(np.mean(smooth - index + 0.5)))
        return Heights(times, index + first - 0.5 - smooth, np.log(times / (2.0 * math.pi)))
    gaps = np.diff(grid, axis=1).reshape(-1)[:number]
    local = np.append(grid[:, :-1].reshape(-1)[:number], grid.reshape(-1)[_last(number, block)])
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    counts = np.arange(number + 1) - np.concatenate([[0.0], np.cumsum(spacings)])
    return Heights(times, counts, np.log(local / (2.0 * math.pi)))


def times_back(spacings: Array, log_heights: Array) -> Array:
    """(heights, n + 1) of the zeros of a series, of which the last lies at each of ``log_heights``.

    A series that begins below the first zero of zeta, as one at a wrong height may, is held there.
    """
    ends = 2.0 * math.pi * np.exp(log_heights)
    passed = np.concatenate([[0.0], np.cumsum(spacings[::-1])])[::-1]
    floor = smooth_count(np.array([_FIRST_ORDINATE])) - smooth_count(ends)
    return _heights_at(ends, np.maximum(-passed, floor[:, None]))


def block_log_heights(spacings: Array, log_height: float, block: int) -> Array:
    """(blocks,) ln(t / 2 pi) where each block of a series starts, of which the last zero lies at ``log_height``."""
    times = times_back(spacings, np.array([log_height]))[0, :-1:block]
    log_heights: Array = np.log(times / (2.0 * math.pi))
    return log_heights


def _last(number: int, block: int) -> int:
    """Where the last zero of ``number`` spacings lies in a flattened (blocks, block + 1)."""
    full, rest = divmod(number - 1, block)
    return full * (block + 1) + rest + 1


def _heights_at(starts: Array, passed: Array) -> Array:
    """(blocks, columns): where u has grown by ``passed`` since u(starts)."""
    wanted = smooth_count(starts)[:, None] + passed
    slope = np.log(starts / (2.0 * math.pi))[:, None]
    # Newton on a convex function comes from above, wherever it starts above.
    heights = np.maximum(starts[:, None] + 2.0 * math.pi * passed / np.maximum(slope, 0.5), _FIRST_ORDINATE)
    for _ in range(_NEWTON):
        logs = np.log(heights / (2.0 * math.pi))
        heights = heights - 2.0 * math.pi * (heights / (2.0 * math.pi) * (logs - 1.0) - wanted) / logs
    return heights
