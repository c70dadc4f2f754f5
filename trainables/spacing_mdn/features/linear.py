"""Linear prediction of a spacing from those before it: least-squares autoregressions, plain or varying with height.

One fit and one predictor over a contiguous series, in numpy. The baselines measure it, and the model may take its
predictions as input features. Every prediction is one step ahead from true values.

The fit is the covariance method: ordinary least squares over every position that has a whole past (Hamilton, Time
Series Analysis, 1994, section 5.2, the conditional likelihood of a Gaussian AR(p)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainables.arrays import Array

_ROWS = 1 << 15  # rows of the design matrix that are held at once


@dataclass(frozen=True)
class ARModel:
    """A fitted predictor: s[t] = intercept(z) + sum_k coef(z)[k] * s[t - 1 - k], Gaussian with a constant sigma.

    ``intercept(z)`` and ``coef(z)`` are polynomials of degree ``degree`` in z = (log height - center) / scale; with
    degree 0 the height plays no part and ``coef[0]`` are the ordinary coefficients, lag 1 first.

    Attributes:
        intercept: (degree + 1,), by power of z.
        coef: (degree + 1, order), by power of z, then by lag.
        sigma: root mean square of the residuals of the fit.
    """

    order: int
    intercept: Array
    coef: Array
    sigma: float
    height_center: float = 0.0
    height_scale: float = 1.0

    @property
    def degree(self) -> int:
        """Degree of the coefficients in log height; 0 if they are constant."""
        return len(self.intercept) - 1

    def predict(self, spacings: Array, log_height: Array | None = None) -> Array:
        """(..., n - order): the predictions of ``spacings[..., order:]``, each from the ``order`` values before it.

        ``log_height``, of each spacing, is needed if ``degree`` > 0. NaN in gives NaN out where it is used.
        """
        num = spacings.shape[-1] - self.order
        if num < 1:
            raise ValueError(f"predict needs more than order={self.order} spacings, got {spacings.shape[-1]}")
        total = self._at_power(spacings, num, 0)
        if self.degree:
            z = self._standardised(spacings, log_height)[..., self.order :]
            for power in range(1, self.degree + 1):
                total += z**power * self._at_power(spacings, num, power)
        return total

    def residuals(self, spacings: Array, log_height: Array | None = None) -> Array:
        """(..., n - order): ``spacings[..., order:]`` less their predictions. Arguments and errors as `predict`."""
        return spacings[..., self.order :] - self.predict(spacings, log_height)

    def nll(self, spacings: Array, log_height: Array | None = None) -> float:
        """Mean negative log density in nats of ``spacings[..., order:]`` under N(prediction, sigma^2)."""
        return gaussian_nll(self.residuals(spacings, log_height), self.sigma)

    def _at_power(self, spacings: Array, num: int, power: int) -> Array:
        total = np.full((*spacings.shape[:-1], num), self.intercept[power])
        for lag in range(1, self.order + 1):
            start = self.order - lag
            total += self.coef[power, lag - 1] * spacings[..., start : start + num]
        return total

    def _standardised(self, spacings: Array, log_height: Array | None) -> Array:
        if log_height is None or log_height.shape != spacings.shape:
            got = "none" if log_height is None else f"shape {log_height.shape}"
            raise ValueError(f"coefficients of degree {self.degree} need log_height of {spacings.shape}, got {got}")
        return (log_height - self.height_center) / self.height_scale


def gaussian_nll(residuals: Array, sigma: float) -> float:
    """Mean negative log density in nats of ``residuals`` under N(0, sigma^2); NaN if any of them is NaN."""
    return float(0.5 * np.mean(np.square(residuals)) / sigma**2 + math.log(sigma) + 0.5 * math.log(2.0 * math.pi))


def fit_ar(spacings: Array, order: int, log_height_per_point: Array | None = None, degree: int = 0) -> ARModel:
    """Fit an autoregression by least squares on one contiguous series.

    Args:
        spacings: (n,) in order of height.
        order: spacings before that predict the next, at least 1.
        log_height_per_point: (n,) log height of each spacing; needed if ``degree`` > 0.
        degree: degree of every coefficient, intercept included, as a polynomial in log height.
    """
    _check(spacings, order, log_height_per_point, degree)
    center, scale = 0.0, 1.0
    z = np.zeros_like(spacings)
    if degree and log_height_per_point is not None:
        low, high = float(log_height_per_point.min()), float(log_height_per_point.max())
        center, scale = 0.5 * (low + high), max(0.5 * (high - low), 1e-12)
        z = (log_height_per_point - center) / scale
    # About 1 rather than 0: spacings have mean 1, and the normal equations lose half as many digits.
    width = (order + 1) * (degree + 1)
    gram, moment, energy = np.zeros((width, width)), np.zeros(width), 0.0
    for design, target in _rows(spacings - 1.0, z, order, degree):
        gram += design.T @ design
        moment += design.T @ target
        energy += float(target @ target)
    solution: Array = np.linalg.lstsq(gram, moment, rcond=None)[0].astype(np.float64)
    squares = energy - 2.0 * float(solution @ moment) + float(solution @ gram @ solution)
    table = solution.reshape(degree + 1, order + 1)
    intercept, coef = table[:, 0].copy(), table[:, 1:].copy()
    intercept -= coef.sum(axis=1)
    intercept[0] += 1.0
    sigma = math.sqrt(max(squares, 0.0) / (len(spacings) - order))
    return ARModel(order, intercept, coef, sigma, center, scale)


def _check(spacings: Array, order: int, log_height: Array | None, degree: int) -> None:
    if spacings.ndim != 1:
        raise ValueError(f"fit_ar takes one contiguous series (n,), got shape {spacings.shape}")
    if order < 1 or degree < 0:
        raise ValueError(f"order must be at least 1 and degree at least 0, got order={order}, degree={degree}")
    unknowns = (order + 1) * (degree + 1)
    if len(spacings) - order <= unknowns:
        raise ValueError(f"{len(spacings)} spacings give {len(spacings) - order} equations for {unknowns} unknowns")
    if degree and (log_height is None or log_height.shape != spacings.shape):
        got = "none" if log_height is None else f"shape {log_height.shape}"
        raise ValueError(f"degree {degree} needs log_height_per_point of shape {spacings.shape}, got {got}")
    if not np.isfinite(spacings).all():
        raise ValueError("fit_ar got spacings that are not finite")


def _rows(values: Array, z: Array, order: int, degree: int) -> Iterator[tuple[Array, Array]]:
    """Runs of (design, target): columns are 1 and the lags 1..order, times each power of z at the target."""
    windows = np.lib.stride_tricks.sliding_window_view(values, order + 1)
    for start in range(0, len(windows), _ROWS):
        part = windows[start : start + _ROWS]
        lags = np.concatenate([np.ones((len(part), 1)), part[:, -2::-1]], axis=1)
        height = z[start + order : start + order + len(part), None]
        yield np.concatenate([lags * height**power for power in range(degree + 1)], axis=1), part[:, -1]
