"""The field ahead: what the lines of the primes say of the gap in which the next zero will fall.

With S = S_P + R + const at the zeros, the next spacing s solves zeta(s) = 1 + R_n - R_{n+1}, where
zeta(s) = s + S_P(t_n + 2 pi s / h) - S_P(t_n) and h is the log height. R_{n+1} is not known; a least-squares prediction
of the right side from the last residuals gives zhat, and s* with zeta(s*) = zhat is a spacing predicted in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trainables.arrays import Array
from trainables.spacing_mdn.features.prime_lines import LAGS, Lines, Run

CELLS = 64
PER_SPACING = 16
"""The field is known at s = 0, 1/16, ..., 4: spacings beyond 4 have not been seen."""
_MIN_SLOPE = 0.05  # of zeta: where the sum would run backwards, it is held to rise, so that s* is one number
BESIDE = (-4, -2, 0, 2, 4)
"""Cells from s* at which the slope is a channel."""
AHEAD = np.arange(4, 49, 4)
"""Cells at which the field is a channel: s = .25, .5, ..., 3."""


@dataclass(frozen=True)
class Ahead:
    """By position, from ``first`` on.

    Attributes:
        residuals: (rows, LAGS) R at the last zeros, latest first.
        zeta: (rows, CELLS + 1) float32.
        target: (rows,) 1 + R_n - R_{n+1}, which only a fit on the training split may look at.
    """

    first: int
    residuals: Array
    zeta: Array
    target: Array


def ahead(runs: Iterable[Run], lines: Lines, times: Array, log_height: Array) -> Ahead:
    """Evaluate the field at every position of ``runs``, which follow one another.

    Args:
        times, log_height: (n + 1,) of the zeros; see `heights.Heights`.
    """
    parts = list(_parts(runs, lines, times, log_height))
    rows = len(times) - 1 - parts[0].first
    residuals, zeta, target = (
        np.concatenate([getattr(part, name) for part in parts])[:rows] for name in ("residuals", "zeta", "target")
    )
    return Ahead(parts[0].first, residuals, zeta, target)


def _parts(runs: Iterable[Run], lines: Lines, times: Array, log_height: Array) -> Iterator[Ahead]:
    grid = np.arange(CELLS + 1) / PER_SPACING
    for run in runs:
        fits, refit_every = run.before.shape
        at = run.first + refit_every * np.arange(fits)
        latest = np.minimum(at[:, None] + 1 + np.arange(refit_every), len(times) - 1)  # zeros
        # One height for all positions of a fit: over 16 spacings it moves by less than a rounded one is off.
        steps = 2.0 * math.pi * grid / log_height[latest[:, :1]]
        phase = lines.omega[:, None] * steps[:, None, :]
        here = times[latest][..., None] * lines.omega
        cosine, sine = np.cos(here), np.sin(here)
        along = np.concatenate(
            [
                run.cosine[:, None] * cosine + run.sine[:, None] * sine,
                run.sine[:, None] * cosine - run.cosine[:, None] * sine,
            ],
            axis=2,
        )
        told = np.matmul(along, np.concatenate([np.cos(phase), np.sin(phase)], axis=1))
        zeta = grid + told - run.before[..., None]
        lags = np.lib.stride_tricks.sliding_window_view(run.residuals, LAGS, axis=1)[..., ::-1]
        yield Ahead(
            run.first,
            lags.reshape(-1, LAGS),
            zeta.reshape(-1, CELLS + 1).astype(np.float32),
            (1.0 + lags[..., 0] - run.next_residual).reshape(-1),
        )


def fit_regression(field: Ahead, rows: slice) -> Array:
    """(1 + LAGS,): least squares of the target on the residuals in ``rows``, intercept first."""
    design = np.concatenate([np.ones((len(field.target[rows]), 1)), field.residuals[rows]], axis=1)
    solution: Array = np.linalg.lstsq(design.T @ design, design.T @ field.target[rows], rcond=None)[0]
    return solution


def spacing_ahead(field: Ahead, regression: Array) -> tuple[Array, Array, Array]:
    """Where the next zero is foretold.

    Returns:
        s* and zhat, (rows,) each, and log slopes of zeta, (rows, CELLS), never below log .05.
    """
    zhat = regression[0] + field.residuals @ regression[1:]
    rise = np.maximum(np.diff(field.zeta, axis=1), _MIN_SLOPE / PER_SPACING).astype(np.float64)
    level = np.concatenate([np.zeros((len(rise), 1)), np.cumsum(rise, axis=1)], axis=1)
    # The cell that zhat falls into; below the first and beyond the last it is carried on along their slopes.
    cell = np.clip((level < zhat[:, None]).sum(axis=1) - 1, 0, CELLS - 1)
    row = np.arange(len(zhat))
    within = (zhat - level[row, cell]) / rise[row, cell]
    s = np.clip((cell + within) / PER_SPACING, 0.0, CELLS / PER_SPACING)
    return s, zhat, np.log(rise * PER_SPACING)


def channels(field: Ahead, regression: Array) -> tuple[Array, Array]:
    """Return s* (rows,), the mixture's offset, and the channels (rows, 20) that a network sees.

    R_n, s* - 1 and zhat - 1; then of the field log slopes about s*, and 2 (zeta(s) - s) ahead.
    """
    s, zhat, slope = spacing_ahead(field, regression)
    cell = np.clip((s * PER_SPACING).astype(np.int64), 0, CELLS - 1)
    beside = np.clip(cell[:, None] + np.array(BESIDE), 0, CELLS - 1)
    beyond = 2.0 * (field.zeta[:, AHEAD] - AHEAD / PER_SPACING)
    parts = [field.residuals[:, :1], s[:, None] - 1.0, zhat[:, None] - 1.0]
    return s, np.concatenate([*parts, np.take_along_axis(slope, beside, axis=1), beyond], axis=1)
