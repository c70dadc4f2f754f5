"""What a learned density of the next spacing has to beat, measured on the run's own data.

Predictors without learned networks, each a closed form or a least-squares fit, each scored by the mean negative log
density (nats per spacing) of every spacing of one split. None is a bound: nothing says that a better linear form does
not exist. Each says what it knows, by class and longest past (`trainables.spacing_mdn.config.knowledge`).

Fitted baselines see only what lies below the split in height, and every prediction uses true values before it, across
the split's lower edge as well.

Source of the marginal: M. L. Mehta, Random Matrices (2004), section 1.5 (Wigner's surmise for unitary ensembles).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.baselines import kept
from analysis.diagnose.api import Baseline
from trainables.api import Split
from trainables.arrays import Array
from trainables.spacing_mdn.config import SpacingConfig, knowledge, known
from trainables.spacing_mdn.data.sets import BLOCK, file_of
from trainables.spacing_mdn.data.spacings import Part, SpacingData, load
from trainables.spacing_mdn.features import prime_lines
from trainables.spacing_mdn.features.linear import fit_ar, gaussian_nll
from trainables.spacing_mdn.features.online_ar import Prior, fit_online
from trainables.spacing_mdn.features.options import FeatureFields, past_of_features
from trainables.spacing_mdn.features.table import assemble, compute, learn

_AR_ORDERS = (1, 8, 16, 32, 64)
_ADAPTIVE = ((32, 256), (64, 256), (64, 1024))  # (order, spacings fitted on) of those fitted anew for every spacing
_MAX_TARGETS = 5_000  # that an adaptive baseline is scored on, evenly spread over the split
_BATCH = 100  # targets whose design matrices are held at once
_ONLINE = ((128, 2048), (256, 4096))  # as adaptive ones, refitted for every 16th spacing, on all of the split
_SHRUNK = (64, 256)
_WEIGHTS = (0.3, 1.0, 3.0, 10.0, 30.0)  # equations of the global fit in a shrunk one; the best below the split is taken
_REFIT = 16
_LEARNT_ON = 8192  # spacings next below the split that a closed form's few numbers are learnt on
_SCHEMA = 3


def _lines(bound: int, window: int, height_source: Literal["given", "inferred"] = "given") -> FeatureFields:
    return FeatureFields(prime_lines=bound, prime_window=window, height_source=height_source)


_CLOSED_FORMS: Mapping[str, FeatureFields] = {
    "bank of ARs, past 256": FeatureFields(ar_bank=256),
    "bank of ARs, past 1024": FeatureFields(ar_bank=1024),
    "bank of ARs, past 4096": FeatureFields(ar_bank=4096),
    "prime lines to 30, past 256": _lines(30, 256),
    "prime lines to 100, past 256": _lines(100, 256),
    "prime lines to 300, past 1024": _lines(300, 1024),
    "prime lines to 300, past 1024, height inferred": _lines(300, 1024, "inferred"),
    "exact prime lines to 10": FeatureFields(prime_lines=10, prime_phases="exact"),
    "exact prime lines to 100": FeatureFields(prime_lines=100, prime_phases="exact"),
    "exact prime lines to 1000": FeatureFields(prime_lines=1000, prime_phases="exact"),
}
"""Features as a model has them, with no network on them: a Gaussian of one width about their offset."""


def baselines(
    dataset: str, data_dir: Path, *, split: Split = "test", config: Mapping[str, Any] | None = None
) -> list[Baseline]:
    """Score every baseline on all spacings of one split, in nats per spacing; see `analysis.diagnose.api.Baselines`.

    ``config`` plays no part: every spacing is a target of every model. Rows are kept beside the data set, where that is
    a file: measuring takes half a minute, and they depend on nothing else.
    """
    data = load(dataset, data_dir)
    path = file_of(dataset, data_dir)
    kept_at = path.parent / "baselines" / f"{dataset}-{split}.json"
    return list(kept(kept_at, f"{_SCHEMA} {data.digest}", lambda: _measured(data, split), keep=path.is_file()))


def _measured(data: SpacingData, split: Split) -> list[Baseline]:
    below, target = below_and_in(data, split)
    rows = linear_baselines(data, split)
    most = len(below.spacings) // 2 - prime_lines.LAGS  # of a past, so that there is as much to learn from
    rows += [_online_ar(below, target, order, window) for order, window in _ONLINE if window <= most]
    rows += [_shrunk_ar(below, target)] if _SHRUNK[1] <= most else []
    for name, fields in _CLOSED_FORMS.items():
        if (_has_heights(below) or not fields.prime_lines) and past_of_features(fields) <= most:
            rows.append(_closed_form(below, target, name, fields))
    return rows


def linear_baselines(data: SpacingData, split: Split) -> list[Baseline]:
    """Those of `baselines` that take a few seconds: the marginal, and autoregressions of up to 64 spacings."""
    below, target = below_and_in(data, split)
    rows = [Baseline("Wigner surmise", wigner_nll(target.spacings), "marginal density, nothing fitted", known("I", 0))]
    rows += [_global_ar(below, target, order, degree=0) for order in _AR_ORDERS]
    if _has_heights(below):
        rows.append(_global_ar(below, target, _AR_ORDERS[-1], degree=2))
    return rows + [_adaptive_ar(below, target, order, window) for order, window in _ADAPTIVE]


def _has_heights(part: Part) -> bool:
    return bool(np.ptp(part.log_height) > 0.0)


def wigner_nll(spacings: Array) -> float:
    """Mean of -ln p for p(s) = 32 s^2 exp(-4 s^2 / pi) / pi^2; infinite if a spacing is 0, NaN if one is negative."""
    with np.errstate(divide="ignore"):
        log_density = math.log(32.0 / math.pi**2) + 2.0 * np.log(spacings) - 4.0 / math.pi * spacings**2
    return -float(np.mean(log_density))


def adaptive_nll(series: Array, targets: NDArray[np.int64], order: int, window: int) -> tuple[float, float]:
    """Score a linear predictor that is fitted anew for each target, on the ``window`` spacings just before it.

    The fit is ordinary least squares with an intercept over the window - order positions that have their whole past
    inside the window, with no ridge and nothing shared between targets. The density is the Gaussian about the
    prediction with the variance of a new observation, s^2 (1 + v' (X'X)^-1 v), where s^2 is the window's residual
    sum of squares over its degrees of freedom and v the target's row; so the target itself enters nowhere.

    Args:
        series: (n,) contiguous spacings.
        targets: positions in ``series`` to score, each at least ``window``.
        order: spacings before that predict the next.
        window: spacings fitted on, more than 2 * order + 1.

    Returns:
        Mean negative log density in nats, and its standard error over targets taken as independent.
    """
    if window <= 2 * order + 1:
        raise ValueError(
            f"window={window} leaves no degree of freedom for order={order}; it takes over {2 * order + 1}"
        )
    if not len(targets) or targets.min() < window:
        raise ValueError(f"adaptive_nll needs targets with window={window} spacings before each")
    scores: list[Array] = []
    for start in range(0, len(targets), _BATCH):
        at = targets[start : start + _BATCH]
        # About 1, as the fit of the global ones: the normal equations keep more digits.
        context = series[at[:, None] + np.arange(-window, 1)] - 1.0
        rows = np.lib.stride_tricks.sliding_window_view(context, order + 1, axis=1)
        past, wanted = rows[:, :-1, :-1], rows[:, :-1, -1]
        new = np.concatenate([np.ones((len(at), 1)), rows[:, -1, :-1]], axis=1)
        gram, moment = _normal_equations(context, order)
        solved = np.linalg.solve(gram, np.stack([moment, new], axis=2))
        coef, leverage = solved[..., 0], np.einsum("bj,bj->b", new, solved[..., 1])
        residuals = wanted - coef[:, :1] - np.einsum("bij,bj->bi", past, coef[:, 1:])
        variance = np.square(residuals).sum(axis=1) / (window - 2 * order - 1) * (1.0 + leverage)
        error = rows[:, -1, -1] - np.einsum("bj,bj->b", new, coef)
        scores.append(0.5 * (error**2 / variance + np.log(2.0 * math.pi * variance)))
    values = np.concatenate(scores)
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def _normal_equations(context: Array, order: int) -> tuple[Array, Array]:
    """X'X and X'y of the fits inside each window, from sums of lagged products.

    Rows overlap, so each entry follows from its neighbour up the diagonal by one product that enters and one that
    leaves (J. Makhoul, Linear prediction: a tutorial review, Proc. IEEE 63, 1975, the covariance method). Many small
    products X'X would do as well, but a threaded BLAS takes up to ten times as long for them where cores are busy.

    Args:
        context: (targets, window + 1), the target last; it is left out.
        order: spacings before that predict the next.

    Returns:
        (targets, order + 1, order + 1) and (targets, order + 1): the intercept first, then the oldest spacing.
    """
    number = context.shape[1] - 1 - order
    rows = np.lib.stride_tricks.sliding_window_view(context[:, :-1], order + 1, axis=1)
    products = np.empty((len(context), order + 2, order + 2))  # of the intercept, every lag, and what is predicted
    products[:, 0, 0] = number
    products[:, 0, 1:] = rows.sum(axis=1)
    lagged = products[:, 1:, 1:]
    lagged[:, 0] = np.einsum("bi,bij->bj", context[:, :number], rows)
    for lag in range(order):
        enters = context[:, number + lag, None] * context[:, number + lag : number + order]
        leaves = context[:, lag, None] * context[:, lag:order]
        lagged[:, lag + 1, lag + 1 :] = lagged[:, lag, lag:-1] + enters - leaves
    below = np.tril_indices(order + 2, -1)
    products[:, *below] = products.transpose(0, 2, 1)[:, *below]
    return products[:, :-1, :-1], products[:, :-1, -1]


def below_and_in(data: SpacingData, split: Split) -> tuple[Part, Part]:
    """All that lies under the split in height, and the split."""
    if split == "val":
        return data.train, data.val
    spacings = np.concatenate([data.train.spacings, data.val.spacings])
    return Part(spacings, np.concatenate([data.train.log_height, data.val.log_height])), data.test


def _global_ar(below: Part, target: Part, order: int, degree: int) -> Baseline:
    heights = below.log_height_per_point() if degree else None
    model = fit_ar(below.spacings, order, heights, degree)
    series = np.concatenate([below.spacings[-order:], target.spacings])
    if heights is None:
        note = f"least squares on {len(below.spacings)} spacings below"
        return Baseline(f"AR({order})", model.nll(series), note, known("I", order))
    along = np.concatenate([heights[-order:], target.log_height_per_point()])
    note = f"coefficients of degree {degree} in log height, least squares on {len(below.spacings)} spacings below"
    # The height of a block to all digits is an ordinate, but polynomials of degree 2 do not read it.
    return Baseline(f"AR({order}), height^{degree}", model.nll(series, along), note, known("II", order))


def _adaptive_ar(below: Part, target: Part, order: int, window: int) -> Baseline:
    series = np.concatenate([below.spacings[-window:], target.spacings])
    step = -(-len(target.spacings) // _MAX_TARGETS)
    targets = np.arange(window, len(series), step)
    nll, error = adaptive_nll(series, targets, order, window)
    note = f"refitted for each of {len(targets)} spacings on the {window} before it; standard error {error:.3f}"
    return Baseline(f"AR({order}) of the last {window}", nll, note, known("I", window))


def _online_ar(below: Part, target: Part, order: int, window: int) -> Baseline:
    series = np.concatenate([below.spacings[-window:], target.spacings])
    fit = fit_online(series, order, window, _REFIT)
    row = window - 1 - fit.first  # what is known at the last spacing below speaks of the split's first
    z = (target.spacings[max(0, -row) :] - fit.prediction[max(0, row) : -1]) / fit.sigma[max(0, row) : -1]
    nll = float(np.mean(0.5 * z**2 + np.log(fit.sigma[max(0, row) : -1]) + 0.5 * math.log(2.0 * math.pi)))
    note = f"refitted for every {_REFIT}th spacing on the {window} before it"
    return Baseline(f"AR({order}) of the last {window}", nll, note, known("I", window))


def _shrunk_ar(below: Part, target: Part) -> Baseline:
    """Drawn to the fit on all below, by a weight that does best on what lies next below the split."""
    order, window = _SHRUNK
    coef, gram = fit_ar(below.spacings, order).coef[0], _gram(below.spacings - 1.0, order)
    prior = {weight: Prior(np.concatenate([[0.0], coef]), weight * gram) for weight in _WEIGHTS}
    scores = {weight: _about(below, target, order, window, prior[weight]) for weight in _WEIGHTS}
    weight = min(scores, key=lambda weight: scores[weight][0])
    note = f"refitted for every {_REFIT}th spacing, with the fit on all below as {weight:g} more equations"
    return Baseline(f"AR({order}) of the last {window}, shrunk", scores[weight][1], note, known("I", window))


def _gram(values: Array, order: int) -> Array:
    """(order + 1, order + 1): the mean over positions of x x', where x is 1 and the last ``order`` values."""
    apart = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    products = np.array([values[lag:] @ values[: len(values) - lag] for lag in range(order)]) / len(values)
    gram = np.zeros((order + 1, order + 1))
    gram[0, 0], gram[1:, 1:] = 1.0, products[apart]
    return gram


def _about(below: Part, target: Part, order: int, window: int, prior: Prior) -> tuple[float, float]:
    """Root mean square error next below the split, and the NLL on the split of Gaussians of that width."""
    learnt = min(_LEARNT_ON, len(below.spacings))
    series = np.concatenate([below.spacings[-learnt:], target.spacings])
    fit = fit_online(series, order, window, _REFIT, prior=prior)
    errors = series[fit.first + 1 :] - fit.prediction[:-1]
    number = learnt - 1 - fit.first
    sigma = float(np.sqrt(np.mean(errors[:number] ** 2)))
    return sigma, gaussian_nll(errors[number:], sigma)


def _closed_form(below: Part, target: Part, name: str, fields: FeatureFields) -> Baseline:
    past = past_of_features(fields)
    blocks = min(-(-(past + _LEARNT_ON) // BLOCK), len(below.log_height))
    until = blocks * BLOCK
    spacings = np.concatenate([below.spacings[-until:], target.spacings])
    heights = np.concatenate([below.log_height[-blocks:], target.log_height])
    raw = compute(fields, spacings, heights)
    numbers = learn(fields, raw, spacings, until)
    offset = assemble(fields, raw, numbers, len(spacings)).offset.astype(np.float64)
    nll = gaussian_nll(target.spacings - offset[until - 1 : -1], numbers.spread)
    knows = knowledge(SpacingConfig(layout="mlp", context=4, eval_tail=4, **fields.model_dump()))
    return Baseline(name, nll, f"closed form; a few numbers by least squares on {until - past} spacings below", knows)
