"""Autoregressions that are fitted anew along a series, each on the spacings just before it: class I, no number theory.

Every fit is ordinary least squares with an intercept inside a window, the covariance method (J. Makhoul, Linear
prediction: a tutorial review, Proc. IEEE 63, 1975). Its normal equations are differences of running sums of lagged
products, so that a fit costs its solution and no pass over its window.

Positions count spacings of the series. "At position i" means: spacing i is the last one known, and i + 1 is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.arrays import Array
from trainables.spacing_mdn.features.options import BANK_LAGS

LAGS = BANK_LAGS
"""Residuals of a fit that are given, the latest first."""
_RIDGE = 1e-9  # of a window's length, on the diagonal: only a series without any variance notices it
Positions = NDArray[np.signedinteger[Any]]
_FLOATS = 1 << 22  # of normal equations that are held at once


@dataclass(frozen=True)
class OnlineFit:
    """One predictor along a series; rows from position ``first`` on.

    Attributes:
        first: the first position whose past holds a window.
        prediction: (rows,) of the next spacing.
        sigma: (rows,) standard deviation of a new observation: s (1 + v' (X'X)^-1 v)^(1/2), where s^2 is the window's
            residual sum of squares over its degrees of freedom and v the target's row.
        residuals: (rows, LAGS) of the spacings up to the position under the coefficients in force, latest first.
    """

    first: int
    prediction: Array
    sigma: Array
    residuals: Array


@dataclass(frozen=True)
class Prior:
    """Further equations of every fit: the coefficients that solve them (order + 1,) and their X'X, intercept first."""

    coef: Array
    gram: Array


def fit_online(
    spacings: Array, order: int, window: int, refit_every: int, *, anchor: int = 0, prior: Prior | None = None
) -> OnlineFit:
    """Predict every spacing from its past by coefficients that are fitted again every ``refit_every`` spacings.

    A fit serves the ``refit_every`` positions from its own on. It is made on ``window - refit_every + 1`` spacings, so
    that the last of these positions looks back no further than ``window``.

    Args:
        spacings: (n,) contiguous.
        order: spacings before that predict the next.
        window: the longest past of any prediction, in spacings.
        refit_every: positions that share a fit; 1 fits for each.
        anchor: fits are made at positions equal to it modulo ``refit_every``.
        prior: of spacings less 1; None leaves a fit to its window alone. ``sigma`` then says little.

    Raises:
        ValueError: the window leaves a fit no degree of freedom, or the series is shorter than it.
    """
    length = window - refit_every + 1
    if length <= 2 * order + 1 or order + LAGS > length:
        raise ValueError(
            f"window = {window}: allowed is over {max(2 * order + 1, order + LAGS - 1) + refit_every - 1} "
            f"for order = {order}, refit_every = {refit_every}"
        )
    # The last of a fit's positions has `refit_every - 1` spacings that the fit has not seen.
    start = window - 1
    start += (anchor - start) % refit_every
    if start >= len(spacings):
        raise ValueError(
            f"window = {window}: the series holds {len(spacings)} spacings, and no position with this past"
        )
    fits = np.arange(start, len(spacings), refit_every)
    rows = len(spacings) - start
    fit = OnlineFit(start, np.empty(rows), np.empty(rows), np.empty((rows, LAGS)))
    batch = max(1, _FLOATS // (order + 2) ** 2)
    values = spacings - 1.0  # about 1: the normal equations keep more digits
    for begin in range(0, len(fits), batch):
        _fit_some(values, fits[begin : begin + batch], order, length, refit_every, prior, fit)
    return fit


def _fit_some(
    values: Array, fits: Positions, order: int, length: int, refit_every: int, prior: Prior | None, into: OnlineFit
) -> None:
    """Fit at each of ``fits``, and fill in the rows that these fits serve."""
    gram, moment, energy = _normal_equations(values, fits, order, length)
    gram[:, np.arange(order + 1), np.arange(order + 1)] += _RIDGE * length
    if prior is not None:
        gram += prior.gram
        moment += prior.gram @ prior.coef
    # Rows of lags of the served positions and of the LAGS spacings before: [1, latest, ..., oldest].
    served = fits[:, None] + np.arange(-LAGS, refit_every)
    inside = np.minimum(served, len(values) - 1)
    design = np.ones((*served.shape, order + 1))
    design[..., 1:] = values[inside[..., None] - np.arange(order)]
    new = design[:, LAGS:]
    solved = np.linalg.solve(gram, np.concatenate([moment[..., None], new.transpose(0, 2, 1)], axis=2))
    coef, leverage = solved[..., 0], np.einsum("bqj,bjq->bq", new, solved[..., 1:])
    squares = energy - np.einsum("bj,bj->b", moment, coef)
    variance = np.maximum(squares, 1e-12) / (length - 2 * order - 1)
    predicted = np.einsum("bqj,bj->bq", design, coef)  # of the spacing after each of `served`
    following = np.minimum(served + 1, len(values) - 1)
    residual = values[following] - predicted
    sigma = np.sqrt(variance[:, None] * (1.0 + np.maximum(leverage, 0.0)))
    # Column c is of the spacing at fits + c - LAGS + 1; a position r after its fit has column r + LAGS - 1 as latest.
    lags = np.lib.stride_tricks.sliding_window_view(residual[:, : LAGS + refit_every - 1], LAGS, axis=1)[..., ::-1]
    begin = int(fits[0]) - into.first
    number = min(len(fits) * refit_every, len(into.prediction) - begin)
    at = slice(begin, begin + number)
    into.prediction[at] = predicted[:, LAGS:].reshape(-1)[:number] + 1.0
    into.sigma[at] = sigma.reshape(-1)[:number]
    into.residuals[at] = lags.reshape(-1, LAGS)[:number]


def _normal_equations(values: Array, fits: Positions, order: int, length: int) -> tuple[Array, Array, Array]:
    """X'X, X'y and y'y of the fits on the ``length`` spacings up to each of ``fits``.

    Returns:
        (fits, order + 1, order + 1), (fits, order + 1) and (fits,): the intercept first, then the latest spacing.
    """
    low, high = int(fits[0]) - length + 1, int(fits[-1]) + 1
    part = values[low:high]
    number = length - order  # equations of a fit
    begin = fits - length + 1 - low  # of each window in `part`
    gram = np.empty((len(fits), order + 1, order + 1))
    moment, energy = np.empty((len(fits), order + 1)), np.empty(len(fits))
    sums = _running(part)
    gram[:, 0, 0] = number
    # A window's target t runs over begin + order .. begin + length - 1; lag k of it is t - k.
    ends = begin[:, None] + order - np.arange(order + 1)
    columns = sums[ends + number] - sums[ends]  # of the target itself, and of lags 1 .. order
    gram[:, 0, 1:] = gram[:, 1:, 0] = columns[:, 1:]
    moment[:, 0] = columns[:, 0]
    for apart, products in _lagged(part, order):
        # The sum over targets of x[t - i] x[t - i - apart], for i = 0 .. order - apart.
        ends = begin[:, None] + order - apart - np.arange(order + 1 - apart)
        sums_apart = products[ends + number] - products[ends]
        if apart:
            moment[:, apart] = sums_apart[:, 0]
        else:
            energy[:] = sums_apart[:, 0]
        lags = np.arange(1, order + 1 - apart)
        gram[:, lags, lags + apart] = gram[:, lags + apart, lags] = sums_apart[:, 1:]
    return gram, moment, energy


def _running(values: Array) -> Array:
    """(n + 1,): sums of the first 0, 1, ... n values."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _lagged(values: Array, order: int) -> Iterator[tuple[int, Array]]:
    """For each distance 0 .. order, running sums of the products of values so far apart."""
    for apart in range(order + 1):
        yield apart, _running(values[apart:] * values[: len(values) - apart])
