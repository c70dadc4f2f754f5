"""The width about a formula: a Gaussian whose log deviation is constant, or linear in a few terms.

Terms are chosen forward by their score and kept as long as the criterion of `selection` falls; each fit is the maximum
of the likelihood, which is concave in the coefficients, by Newton's method. Source: A. C. Harvey, Estimating
regression models with multiplicative heteroscedasticity, Econometrica 44 (1976), 461-465.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.spacing_mdn.extraction.selection import price
from trainables.arrays import Array

_MOST_TERMS = 6
_ITERATIONS = 50
_ENOUGH = 1e-10  # nats a target that another step of Newton would gain
_LEAST = 1e-6  # deviation where nothing is left of the errors


@dataclass(frozen=True)
class Spread:
    """log sigma = coef[0] + sum of coefficients times terms, held within what it was where it was fitted."""

    places: tuple[int, ...]
    coef: Array
    lowest: float
    highest: float

    def nll(self, terms: Array, errors: Array) -> Array:
        """(n,) nats of errors about a mean."""
        log_sigma = np.clip(_design(terms, self.places) @ self.coef, self.lowest, self.highest)
        nll: Array = 0.5 * np.square(errors * np.exp(-log_sigma)) + log_sigma + 0.5 * math.log(2.0 * math.pi)
        return nll


def fit(terms: Array, errors: Array, most: int = _MOST_TERMS) -> Spread:
    """Fit to ``errors`` (n,) with ``terms`` (n, terms) to choose from; ``most = 0`` gives a constant."""
    number = len(errors)
    places: tuple[int, ...] = ()
    coef = np.array([math.log(max(math.sqrt(float(np.mean(np.square(errors)))), _LEAST))])
    loss = _loss(_design(terms, places), errors, coef)
    while len(places) < most:
        place = _best(terms, errors, places, coef)
        design = _design(terms, (*places, place))
        longer, after = _newton(design, errors, np.append(coef, 0.0))
        if 2.0 * number * (loss - after) <= price(number, terms.shape[1]):
            break
        places, coef, loss = (*places, place), longer, after
    along = _design(terms, places) @ coef
    return Spread(places, coef, float(along.min()), float(along.max()))


def _design(terms: Array, places: tuple[int, ...]) -> Array:
    return np.concatenate([np.ones((len(terms), 1)), terms[:, list(places)]], axis=1)


def _best(terms: Array, errors: Array, places: tuple[int, ...], coef: Array) -> int:
    """The term whose score, relative to its deviation given those chosen, is largest."""
    design = _design(terms, places)
    surplus = np.square(errors * np.exp(-design @ coef)) - 1.0
    new = terms - design @ np.linalg.lstsq(design, terms, rcond=None)[0]
    squares, whole = np.square(new).sum(axis=0), np.square(terms - terms.mean(axis=0)).sum(axis=0)
    score = np.where(squares > 1e-9 * np.maximum(whole, 1e-300), np.square(surplus @ new), 0.0)
    return int((score / np.maximum(squares, 1e-300)).argmax())


def _newton(design: Array, errors: Array, coef: Array) -> tuple[Array, float]:
    """Coefficients of the largest likelihood from ``coef`` on, and the loss there, in nats a target."""
    loss = _loss(design, errors, coef)
    for _ in range(_ITERATIONS):
        squares = np.square(errors * np.exp(-design @ coef))
        gradient = design.T @ (1.0 - squares)
        step = np.linalg.lstsq(2.0 * (design.T * squares) @ design, gradient, rcond=None)[0]
        length = 1.0
        while (after := _loss(design, errors, coef - length * step)) > loss and length > 1e-6:
            length /= 2.0
        if loss - after <= _ENOUGH:
            break
        coef, loss = coef - length * step, after
    return coef, loss


def _loss(design: Array, errors: Array, coef: Array) -> float:
    log_sigma = design @ coef
    with np.errstate(over="ignore"):
        return float(np.mean(0.5 * np.square(errors * np.exp(-log_sigma)) + log_sigma))
