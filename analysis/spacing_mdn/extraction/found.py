"""Everything that is extracted from one model, as it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.spacing_mdn.extraction import spread
from analysis.spacing_mdn.extraction.lines import LineFit, Shares, fit, resolved_lines, shares
from analysis.spacing_mdn.extraction.resampled import share_of_variance
from analysis.spacing_mdn.extraction.seen import Seen, look
from analysis.spacing_mdn.extraction.selection import Formula, select
from analysis.spacing_mdn.extraction.selection import fit as refit
from analysis.spacing_mdn.extraction.shares import Scored, class_baseline, gain, marginal, scored
from analysis.spacing_mdn.extraction.terms import Term, dictionary
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.spacing_mdn.task import SpacingTask

MARGINAL, WINNER = "the marginal", "the winner"
CONSTANT, LINEAR = "the formula, constant width", "the formula, width linear in terms"
OWN_MEAN = "the winner's own mean, width linear in terms"


@dataclass(frozen=True)
class LinesFound:
    """Lines in the true spacings and in the winner's mean, on val, and what they hold of both on test."""

    spacings: LineFit
    mean: LineFit
    of_spacings: Shares
    of_mean: Shares


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        names: the dictionary.
        explained: (1 + products,) of the variance of the winner's mean on test, with the first so many products.
        whole: of all products, with its interval.
        missed, error: root mean squares on test, in spacings: of the winner's mean about the formula, and of the true
            spacing about the winner's mean.
        width: terms of the log deviation about the formula.
        rows: densities by name, from worst to best known.
        base: the name of the baseline of the winner's class among ``rows``.
        gains: of the winner over both bases, in nats.
        lines: None on data without lines.
    """

    names: tuple[Term, ...]
    formula: Formula
    explained: tuple[float, ...]
    whole: Interval
    missed: float
    error: float
    width: spread.Spread
    rows: dict[str, Scored]
    base: str
    gains: dict[str, Interval]
    lines: LinesFound | None
    num_fitted: int
    num_scored: int


def find(task: SpacingTask) -> Found:
    """Fit on val, score on test; raises `analysis.extraction.NoFormula`."""
    names = dictionary(task.config)
    val, test = look(task, "val"), look(task, "test")
    formula = select(val.terms, val.mean, names)
    mean = formula.predict(test.terms)
    base, nats = class_baseline(task.data, val, test, task.config.past)
    left = val.targets - formula.predict(val.terms)
    width = spread.fit(val.terms, left)
    own = spread.fit(val.terms, val.targets - val.mean)
    densities = {
        MARGINAL: marginal(task.data, test),
        base: nats,
        CONSTANT: spread.fit(val.terms, left, 0).nll(test.terms, test.targets - mean),
        LINEAR: width.nll(test.terms, test.targets - mean),
        OWN_MEAN: own.nll(test.terms, test.targets - test.mean),
        WINNER: test.nll,
    }
    return Found(
        names,
        formula,
        tuple(_explained(val, test, formula)),
        share_of_variance(test.mean, mean),
        _root_mean_square(test.mean - mean),
        _root_mean_square(test.targets - test.mean),
        width,
        scored(densities, (MARGINAL, base), WINNER),
        base,
        {name: gain(densities[name], test.nll) for name in (MARGINAL, base)},
        _lines(val, test),
        len(val.targets),
        len(test.targets),
    )


def _explained(val: Seen, test: Seen, formula: Formula) -> list[float]:
    return [
        share_of_variance(test.mean, refit(val.terms, val.mean, formula.products[:number]).predict(test.terms)).value
        for number in range(len(formula.products) + 1)
    ]


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _lines(val: Seen, test: Seen) -> LinesFound | None:
    if val.places is None or test.places is None:
        return None
    lines = resolved_lines(val.places)
    if lines is None:
        return None
    of = partial(fit, at=val.places, lines=lines)
    spacings, mean = of(val.targets), of(val.mean)
    return LinesFound(spacings, mean, shares(spacings, test.targets, test.places), shares(mean, test.mean, test.places))
