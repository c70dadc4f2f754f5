"""How much of a winner's gain a formula keeps: what densities score on the same targets, and shares with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.spacing_mdn.baselines import below_and_in
from analysis.spacing_mdn.extraction import spread
from analysis.spacing_mdn.extraction.resampled import block_length, ratio
from analysis.spacing_mdn.extraction.seen import Seen
from analysis.spacing_mdn.marginal import marginal_nll
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.spacing_mdn.data.spacings import SpacingData
from trainables.spacing_mdn.features.linear import fit_ar
from trainables.spacing_mdn.features.online_ar import fit_online

_ORDER, _WINDOW, _REFIT = 64, 256, 16  # of the autoregressions that a model without a closed form is held against


@dataclass(frozen=True)
class Scored:
    """A density on the targets of the test split, in nats: its own mean, and its share of the gain over each base.

    ``shares`` are by the name of the base; NaN throughout where the winner is not surely ahead of it.
    """

    nll: Interval
    shares: Mapping[str, Interval]


def scored(densities: Mapping[str, Array], bases: tuple[str, ...], winner: str) -> dict[str, Scored]:
    """Score every density; a share is (base - density) / (base - winner)."""
    found = {}
    for name, nll in densities.items():
        kept = {base: share(densities[base], nll, densities[winner]) for base in bases}
        found[name] = Scored(mean_interval(nll, block_length(len(nll))), kept)
    return found


def gain(base: Array, nll: Array) -> Interval:
    """Nats by which ``nll`` lies below ``base``, target by target."""
    return mean_interval(base - nll, block_length(len(nll)))


def share(base: Array, nll: Array, winner: Array) -> Interval:
    """Of the gain of ``winner`` over ``base`` in the mean, what ``nll`` has; all (n,) on the same targets."""
    if not gain(base, winner).low > 0.0:
        return Interval(math.nan, math.nan, math.nan)
    return ratio(base - nll, base - winner)


def class_baseline(data: SpacingData, fitted: Seen, seen: Seen, past: int) -> tuple[str, Array]:
    """Name and nats of the best of a few predictors that know no more than the winner does.

    They are the closed form that the winner's mixture is relative to, if there is one, with the width that it has in
    ``fitted``; and autoregressions within the winner's ``past``, fitted below ``seen``.
    """
    below, part = below_and_in(data, "test")
    order = min(_ORDER, past)
    model = fit_ar(below.spacings, order)
    errors = model.residuals(np.concatenate([below.spacings[-order:], part.spacings]))[seen.positions]
    rows = {f"AR({order})": 0.5 * np.square(errors / model.sigma) + math.log(model.sigma)}
    if past >= _WINDOW:
        online = fit_online(np.concatenate([below.spacings[-2 * _WINDOW :], part.spacings]), _ORDER, _WINDOW, _REFIT)
        row = 2 * _WINDOW - 1 + seen.positions - online.first
        z = (seen.targets - online.prediction[row]) / online.sigma[row]
        rows[f"AR({_ORDER}) of the last {_WINDOW}"] = 0.5 * np.square(z) + np.log(online.sigma[row])
    if seen.guess is not None and fitted.guess is not None:
        width = spread.fit(fitted.terms, fitted.targets - fitted.guess, 0)
        nats = width.nll(seen.terms, seen.targets - seen.guess)
        rows["its features' closed form"] = nats - 0.5 * math.log(2.0 * math.pi)
    name = min(rows, key=lambda name: float(rows[name].mean()))
    return name, rows[name] + 0.5 * math.log(2.0 * math.pi)


def marginal(data: SpacingData, seen: Seen) -> Array:
    """(n,) nats under the histogram of all spacings below the test split."""
    return marginal_nll(below_and_in(data, "test")[0].spacings, seen.targets)
