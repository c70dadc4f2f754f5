"""What a formula is fitted to: a model's predictions along one split, and all that the model saw before each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.diagnose.api import NoEvidence
from analysis.extraction import NoFormula
from analysis.spacing_mdn.extraction.terms import columns
from analysis.spacing_mdn.prime_lines import smooth_heights
from analysis.spacing_mdn.sweep import finite_sweep
from trainables.api import Split
from trainables.arrays import Array
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part
from trainables.spacing_mdn.features.heights import heights_of
from trainables.spacing_mdn.model import guess_channel
from trainables.spacing_mdn.sample import draw
from trainables.spacing_mdn.task import SpacingTask

FEWEST = 512
"""Targets of a split, below which nothing is fitted."""
_BATCH = 4096


@dataclass(frozen=True)
class Places:
    """Where the last known zero before each of n targets lies.

    Attributes:
        times: (n,) its ordinate.
        log_height: (n,) ln(t / 2 pi) there.
        spacings: (n,) the true spacing that follows, in mean spacings.
    """

    times: Array
    log_height: Array
    spacings: Array


@dataclass(frozen=True)
class Seen:
    """Targets in order of height.

    Attributes:
        positions: (n,) where in the split the targets are.
        targets: (n,) true spacings.
        mean: (n,) that the model predicted.
        nll: (n,) nats of the model.
        terms: (n, terms) of `terms.dictionary`, known before each target.
        guess: (n,) the closed form that the model's mixture is relative to; None without one.
        places: None on data whose heights are not those of zeta zeros.
    """

    positions: NDArray[np.int64]
    targets: Array
    mean: Array
    nll: Array
    terms: Array
    guess: Array | None
    places: Places | None


def look(task: SpacingTask, split: Split) -> Seen:
    """Predict along a split; raises `NoFormula` if it is too short or the model's density is not finite."""
    try:
        swept = finite_sweep(draw(task, split))
    except NoEvidence as nothing:
        raise NoFormula(f"{split}: {nothing}") from nothing
    windows, context = task.windows(split), task.config.context
    whole = swept.positions - context >= windows.first  # a window's first targets have no window of their own
    positions = swept.positions[whole]
    if len(positions) < FEWEST:
        raise NoFormula(f"{split}: {len(positions)} predictions; a formula takes at least {FEWEST}")
    guess_at, guesses, terms = guess_channel(task.config), [], []
    for starts in torch.split(torch.from_numpy(positions - context), _BATCH):
        inputs = windows.inputs(starts.to(task.device))
        last = inputs[:, -1].double().cpu().numpy()
        if task.config.layout == "mlp":
            past, rest = last[:, :context], last[:, context:]
        else:
            past, rest = inputs[..., 0].double().cpu().numpy(), last[:, 1:]
        terms.append(columns(task.model, past, rest))
        if guess_at is not None:
            guesses.append(last[:, guess_at] + 1.0)
    part = task.part(split)
    return Seen(
        positions,
        swept.targets[whole],
        swept.mean[whole],
        swept.nll[whole],
        np.concatenate(terms),
        np.concatenate(guesses) if guesses else None,
        _places(part, positions),
    )


def _places(part: Part, positions: NDArray[np.int64]) -> Places | None:
    if smooth_heights(part) is None:
        return None
    at = heights_of(part.spacings, part.log_height, BLOCK, exact=True)
    return Places(at.times[positions], at.log_height[positions], part.spacings[positions])
