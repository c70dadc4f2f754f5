"""A sparse closed form by forward selection: few terms of a dictionary and products of two, by least squares.

Terms are chosen one after the other, each the one that explains most of what is left, by orthogonal least squares (S.
Chen, S. A. Billings and W. Luo, Int. J. Control 50 (1989), 1873-1896), as long as the extended Bayesian information
criterion falls, which reckons with the number of terms to choose from (J. Chen and Z. Chen, Biometrika 95 (2008),
759-771). Products are tried of what has been chosen by itself first (effect
heredity: M. Hamada and C. F. J. Wu, J. Quality Technology 24 (1992), 130-137) and of terms that lead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from analysis.spacing_mdn.extraction.resampled import blocks, drawn, percentiles
from analysis.spacing_mdn.extraction.terms import Term
from analysis.stats.interval import Interval
from trainables.arrays import Array

MOST_TERMS = 12
_HEADS = 8  # terms chosen by themselves whose products are tried
_DEPENDENT = 1e-9  # of a column's squares left after the chosen ones: it is a sum of them
_EXACT = 1e-12  # of the target's squares left: nothing more to explain

Product = tuple[int, ...]
"""One term, or two that are multiplied, by their places in the dictionary."""


@dataclass(frozen=True)
class Formula:
    """intercept + sum of coefficients times products, in the order in which they were chosen.

    Attributes:
        coef: (1 + products,) the intercept first.
        intervals: of ``coef``, by a block bootstrap of what the formula leaves.
    """

    products: tuple[Product, ...]
    coef: Array
    intervals: tuple[Interval, ...]

    def predict(self, terms: Array) -> Array:
        """(n,) from (n, terms)."""
        total: Array = self.coef[0] + products_of(terms, self.products) @ self.coef[1:]
        return total

    def text(self, names: Sequence[Term]) -> str:
        """``mean = 1.01 + 0.93 (s* - 1) - 0.21 R x1``; coefficients to three digits."""
        parts = [f"mean = {self.coef[0]:.3g}"]
        for value, product in zip(self.coef[1:], self.products, strict=True):
            parts.append(f"{'-' if value < 0.0 else '+'} {abs(value):.3g} {name_of(product, names)}")
        return " ".join(parts)


def name_of(product: Product, names: Sequence[Term]) -> str:
    """``R x1``; ``R^2`` for a square."""
    first, *others = (names[factor].name for factor in product)
    return first if not others else f"{first}^2" if others[0] == first else f"{first} {others[0]}"


def products_of(terms: Array, products: Sequence[Product]) -> Array:
    """(n, products): the products' values."""
    values = np.ones((len(terms), len(products)))
    for column, product in enumerate(products):
        for factor in product:
            values[:, column] *= terms[:, factor]
    return values


def select(terms: Array, target: Array, names: Sequence[Term], most: int = MOST_TERMS) -> Formula:
    """Find a formula of ``target`` (n,) in ``terms`` (n, terms)."""
    heads = dict.fromkeys(forward(terms, target, _HEADS))
    heads |= dict.fromkeys(place for place, term in enumerate(names) if term.leads)
    candidates: list[Product] = [(place,) for place in range(terms.shape[1])]
    candidates += combinations_with_replacement(sorted(heads), 2)
    chosen = forward(products_of(terms, candidates), target, most)
    return fit(terms, target, tuple(candidates[place] for place in chosen))


def fit(terms: Array, target: Array, products: tuple[Product, ...]) -> Formula:
    """Least squares of ``target`` on given products."""
    design = np.concatenate([np.ones((len(target), 1)), products_of(terms, products)], axis=1)
    coef = np.linalg.lstsq(design, target, rcond=None)[0]
    left = design * (target - design @ coef)[:, None]
    scores = np.stack([left[block].sum(axis=0) for block in blocks(len(target))])
    draws = coef + np.linalg.solve(design.T @ design, drawn(scores).T).T
    return Formula(products, coef, tuple(percentiles(float(c), draw) for c, draw in zip(coef, draws.T, strict=True)))


def price(number: int, candidates: int) -> float:
    """What of twice the log likelihood of ``number`` targets a term has to gain that was the best of ``candidates``."""
    return math.log(number) + 2.0 * math.log(candidates)


def forward(columns: Array, target: Array, most: int) -> list[int]:
    """Columns of (n, columns) in the order in which they are chosen, at most ``most``."""
    number = len(target)
    left = target - target.mean()
    rest = columns - columns.mean(axis=0)
    squares, energy = np.square(rest).sum(axis=0), float(left @ left)
    chosen: list[int] = []
    least, whole = _DEPENDENT * np.maximum(squares, np.finfo(float).tiny), energy
    while len(chosen) < most and energy > _EXACT * whole:
        own = np.square(rest).sum(axis=0)
        gains = np.where(own > least, np.square(left @ rest) / np.maximum(own, 1e-300), 0.0)
        best = int(gains.argmax())
        after = max(energy - float(gains[best]), _EXACT * whole)
        if number * math.log(energy / after) <= price(number, columns.shape[1]):
            break
        chosen.append(best)
        unit = rest[:, best] / math.sqrt(own[best])
        left = left - unit * (unit @ left)
        rest -= np.outer(unit, unit @ rest)
        energy = float(left @ left)
    return chosen
