"""The terms that a formula of a model's mean is written in: what the model is shown of the past, by name.

All in natural units: spacings less 1, residuals of S(t) in zeros, slopes as they are. What a model sees standardised is
turned back by the numbers that travel with its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainables.arrays import Array
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.features.field import AHEAD, BESIDE, PER_SPACING
from trainables.spacing_mdn.features.options import BANK_LAGS, BANKS
from trainables.spacing_mdn.features.table import Numbers
from trainables.spacing_mdn.model import SpacingModel
from trainables.spacing_mdn.windows import RESIDUAL_GAIN

_LAGS = 32  # spacings of the past that are terms


@dataclass(frozen=True)
class Term:
    """One thing that a model sees.

    Attributes:
        name: as it stands in a formula.
        meaning: a clause that explains it.
        leads: products with it are always tried.
    """

    name: str
    meaning: str
    leads: bool = False


def dictionary(config: SpacingConfig) -> tuple[Term, ...]:
    """The terms of models of ``config``, in the order of `columns`."""
    return tuple(_terms(config))


def _terms(config: SpacingConfig) -> Iterator[Term]:
    for lag in range(1, min(config.context, _LAGS) + 1):
        yield Term(f"x{lag}", f"the spacing {lag} before the predicted one, less 1", lag <= 2)
    if config.ar_features:
        yield Term("e", "what the linear predictor missed of the last spacing")
        yield Term("(a - 1)", f"the prediction of AR({config.ar_features}), less 1", True)
    if _has_offset(config):
        yield Term("(o - 1)", "the closed form that the mixture is relative to, less 1", True)
    if config.height_input:
        yield Term("h", "the log height, less its mean over the training split and over its deviation there")
    for order, window in BANKS[config.ar_bank]:
        name = f"AR({order}) of the last {window}"
        yield Term(f"(a{order}.{window} - 1)", f"the prediction of {name}, less 1", True)
        yield Term(f"w{order}.{window}", f"the log of the deviation that {name} expects")
        for lag in range(1, BANK_LAGS + 1):
            yield Term(f"e{order}.{window}[{lag}]", f"what {name} leaves of the spacing {lag} before")
    if config.prime_lines:
        yield from _of_lines(config)


def _of_lines(config: SpacingConfig) -> Iterator[Term]:
    yield Term("R", "what the lines leave of S at the last zero", True)
    yield Term("(s* - 1)", "the spacing at which the lines let the next zero fall, less 1", True)
    yield Term("(z - 1)", "the count at which the next zero is expected, from the last residuals, less 1", True)
    if config.prime_grid:
        for cells in BESIDE:
            at = f"s*{cells / PER_SPACING:+g}" if cells else "s*"
            yield Term(f"ln f'({at})", f"the log slope of the count ahead, f, at {at}")
        for cell in AHEAD.tolist():
            s = f"{cell / PER_SPACING:g}"
            yield Term(f"(f({s}) - {s})", f"how far the lines bend the count ahead, f, at s = {s}")


def columns(model: SpacingModel, past: Array, rest: Array) -> Array:
    """(n, terms) of `dictionary` from a model's inputs.

    Args:
        past: (n, context) spacings less 1, the latest last.
        rest: (n, channels) the other channels of the last position.
    """
    config = model.config
    parts, at = [past[:, ::-1][:, :_LAGS]], 0
    if config.ar_features:
        parts += [rest[:, :1] / RESIDUAL_GAIN, rest[:, 1:2]]
        at = 2
    if config.has_features:
        parts += [rest[:, at : at + 1]] if _has_offset(config) else []
        at += 1
    if config.height_input:
        parts.append(rest[:, at : at + 1])
        at += 1
    if config.has_features:
        numbers = Numbers.unpacked(model.feature_numbers.cpu().numpy(), config)
        features = rest[:, at:] * numbers.std + numbers.mean
        if config.prime_grid:
            features[:, -len(AHEAD) :] /= 2.0
        parts.append(features)
    return np.concatenate(parts, axis=1)


def _has_offset(config: SpacingConfig) -> bool:
    """Whether the offset is more than one prediction in other units."""
    return config.has_features and len(BANKS[config.ar_bank]) + bool(config.prime_lines) > 1
