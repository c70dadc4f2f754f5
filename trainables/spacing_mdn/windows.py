"""From a split to a model's inputs and targets: channels for each spacing, and windows cut out of them.

The task draws where training windows start; those of evaluation lie at a fixed stride, the same at every call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data.sets import BLOCK, file_of
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.features.heights import rounded
from trainables.spacing_mdn.features.linear import ARModel, fit_ar
from trainables.spacing_mdn.features.table import Features, assemble, compute, features
from trainables.spacing_mdn.model import SpacingModel, cut_positions

RESIDUAL_GAIN = 2.0
"""Residuals of the linear predictor are about half as large as spacings less 1: this makes the channels alike."""


@dataclass(frozen=True)
class Channels:
    """What turns spacings into input channels; all of it is fitted on the training split.

    Attributes:
        ar: the linear predictor, or None without ``ar_features``.
        height_mean: mean log height of the training blocks, or None without ``height_input``.
        height_std: their standard deviation; 1 if they are all alike (the GUE control).
        rounding: step that log heights are rounded to; 0 leaves them as they are.
        features: rows of the whole data set, or None without any.
    """

    ar: ARModel | None
    height_mean: float | None
    height_std: float
    rounding: float = 0.0
    features: Features | None = None

    @staticmethod
    def fit(config: SpacingConfig, train: Part, features: Features | None = None) -> Channels:
        """Fit on ``train`` what ``config`` asks for; ``features`` are of the data set that it belongs to."""
        ar = fit_ar(train.spacings, config.ar_features) if config.ar_features else None
        if not config.height_input:
            return Channels(ar, None, 1.0, features=features)
        heights = rounded(train.log_height, config.height_rounding)
        std = float(heights.std())
        return Channels(ar, float(heights.mean()), std if std > 1e-9 else 1.0, config.height_rounding, features)

    def remember_in(self, model: SpacingModel) -> None:
        """Copy these numbers into the model's buffers, for `predict.predict_next`."""
        if self.ar is not None:
            numbers = np.concatenate([self.ar.intercept[:1], self.ar.coef[0]])
            model.linear_predictor.copy_(torch.from_numpy(numbers))
        if self.height_mean is not None:
            model.height_scale.copy_(torch.tensor([self.height_mean, self.height_std], dtype=torch.float64))
        if self.features is not None:
            model.feature_numbers.copy_(torch.from_numpy(self.features.numbers.packed()))
            model.spread.fill_(self.features.numbers.spread)

    def along(self, config: SpacingConfig, data: SpacingData) -> Channels:
        """The same, with the features of another series, as the training split of the first has them learnt."""
        if self.features is None:
            return self
        raw = compute(config, data.whole.spacings, data.whole.log_height)
        numbers = self.features.numbers
        return replace(self, features=assemble(config, raw, numbers, len(data.whole.spacings)))

    def lead(self, start: int = 0) -> int:
        """Spacings whose channels are not defined, from the first of a split that starts at ``start`` of its data set.

        A linear predictor lacks its past at the start of every split; features look back across the edge.
        """
        if self.features is not None:
            return max(0, self.features.first - start)
        return self.ar.order if self.ar is not None else 0

    def of(self, part: Part, start: int = 0) -> NDArray[np.float32]:
        """(spacings, channels) float32, computed in float64; the first `lead` rows hold zeros where undefined."""
        rows = slice(start, start + len(part.spacings))
        channels = [part.spacings - 1.0]
        if self.ar is not None:
            order = self.ar.order
            predicted = self.ar.predict(part.spacings)  # of spacings[order:]
            residual = np.zeros_like(part.spacings)
            residual[order:] = part.spacings[order:] - predicted
            # The last row's prediction would be of a spacing beyond the split, which no window needs.
            following = np.zeros_like(part.spacings)
            following[order - 1 : -1] = predicted - 1.0
            channels += [RESIDUAL_GAIN * residual, following]
        if self.features is not None:
            channels.append(self.features.offset[rows].astype(np.float64) - 1.0)
        if self.height_mean is not None:
            heights = rounded(part.log_height, self.rounding)
            channels.append(np.repeat((heights - self.height_mean) / self.height_std, BLOCK))
        table = np.stack(channels, axis=-1).astype(np.float32)
        return table if self.features is None else np.concatenate([table, self.features.channels[rows]], axis=1)


def features_of(config: SpacingConfig, data: SpacingData, data_dir: Path) -> Features | None:
    """Features of the whole data set, learnt on its training split; None where ``config`` asks for none."""
    if not config.has_features:
        return None
    whole, folder = data.whole, file_of(config.data, data_dir).parent
    until = len(data.train.spacings)
    return features(config, whole.spacings, whole.log_height, until, digest=data.digest, folder=folder)


class Windows:
    """One split on a device: its channels, and windows of inputs and targets at any start.

    A window that starts at ``i`` holds the spacings i .. i + context - 1; the last target is spacing i + context.
    """

    def __init__(
        self, config: SpacingConfig, part: Part, channels: Channels, device: torch.device, start: int = 0
    ) -> None:
        # Only the last position of a window is read once: the features of those before may be undefined.
        self.first = max(0, channels.lead(start) - (config.context - 1 if config.layout == "mlp" else 0))
        self.last = len(part.spacings) - config.context - 1
        if self.last < self.first:
            raise ValueError(
                f"context = {config.context}: a split of {len(part.spacings)} spacings holds no window of it; "
                f"allowed is at most {len(part.spacings) - self.first - 1}"
            )
        self._inputs = torch.from_numpy(channels.of(part, start)).to(device)
        self._spacings = torch.from_numpy(part.spacings.astype(np.float32)).to(device)
        self._span = torch.arange(config.context, device=device)
        self._last_only = config.layout == "mlp"
        ahead = cut_positions(config) if config.reads_once else range(1, config.context + 1)
        self._ahead = torch.tensor(list(ahead), device=device)
        self._stride = config.eval_stride if config.reads_once else config.eval_tail
        self._device = device

    def starts(self, number: int, generator: torch.Generator) -> Int[Tensor, " number"]:
        """Starts of ``number`` training windows, uniform over all that fit."""
        return torch.randint(self.first, self.last + 1, (number,), generator=generator).to(self._device)

    def evaluated_starts(self) -> Int[Tensor, " windows"]:
        """Starts of the evaluation's windows.

        Where every position predicts, at every ``eval_tail`` spacings, so that each spacing with a whole past is among
        the last ``eval_tail`` targets of exactly one window (a remainder at the end aside); else at every
        ``eval_stride``.
        """
        return torch.arange(self.first, self.last + 1, self._stride, device=self._device)

    def inputs(self, starts: Int[Tensor, " batch"]) -> Float[Tensor, "batch positions channels"]:
        """Channels of the windows at ``starts``: of every position; for layout ``mlp`` of the last, after the past."""
        if self._last_only:
            last = self._inputs[starts + len(self._span) - 1, 1:]
            past = self._inputs[starts.unsqueeze(1) + self._span, 0]
            return torch.cat((past, last), dim=1).unsqueeze(1)
        return self._inputs[starts.unsqueeze(1) + self._span]

    def targets(self, starts: Int[Tensor, " batch"]) -> Float[Tensor, "batch predictions"]:
        """What the model has to predict from the windows at ``starts``."""
        return self._spacings[self.places(starts)]

    def places(self, starts: Int[Tensor, " batch"]) -> Int[Tensor, "batch predictions"]:
        """Where in the split the targets of the windows at ``starts`` lie."""
        return starts.unsqueeze(1) + self._ahead

    def spacings(self, starts: Int[Tensor, " batch"]) -> Float[Tensor, "batch context"]:
        """The spacings of the windows themselves, without targets."""
        return self._spacings[starts.unsqueeze(1) + self._span]
