"""From a split to a model's inputs and targets: channels for each spacing, and windows cut out of them.

The task draws where training windows start; those of evaluation lie at a fixed stride, the same at every call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part
from trainables.spacing_mdn.linear import ARModel, fit_ar
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
    """

    ar: ARModel | None
    height_mean: float | None
    height_std: float

    @staticmethod
    def fit(config: SpacingConfig, train: Part) -> Channels:
        """Fit on ``train`` what ``config`` asks for."""
        ar = fit_ar(train.spacings, config.ar_features) if config.ar_features else None
        if not config.height_input:
            return Channels(ar, None, 1.0)
        std = float(train.log_height.std())
        return Channels(ar, float(train.log_height.mean()), std if std > 1e-9 else 1.0)

    def remember_in(self, model: SpacingModel) -> None:
        """Copy these numbers into the model's buffers, for `predict.predict_next`."""
        if self.ar is not None:
            numbers = np.concatenate([self.ar.intercept[:1], self.ar.coef[0]])
            model.linear_predictor.copy_(torch.from_numpy(numbers))
        if self.height_mean is not None:
            model.height_scale.copy_(torch.tensor([self.height_mean, self.height_std], dtype=torch.float64))

    @property
    def lead(self) -> int:
        """Spacings at the start of a split whose channels are not defined: the past of the first residual."""
        return self.ar.order if self.ar is not None else 0

    def of(self, part: Part) -> NDArray[np.float32]:
        """(spacings, channels) float32, computed in float64; the first `lead` rows hold zeros where undefined."""
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
        if self.height_mean is not None:
            channels.append(np.repeat((part.log_height - self.height_mean) / self.height_std, BLOCK))
        return np.stack(channels, axis=-1).astype(np.float32)


class Windows:
    """One split on a device: its channels, and windows of inputs and targets at any start.

    A window that starts at ``i`` holds the spacings i .. i + context - 1; the last target is spacing i + context.
    """

    def __init__(self, config: SpacingConfig, part: Part, channels: Channels, device: torch.device) -> None:
        self.first = channels.lead
        self.last = len(part.spacings) - config.context - 1
        if self.last < self.first:
            raise ValueError(
                f"context = {config.context}: a split of {len(part.spacings)} spacings holds no window of it; "
                f"allowed is at most {len(part.spacings) - self.first - 1}"
            )
        self._inputs = torch.from_numpy(channels.of(part)).to(device)
        self._spacings = torch.from_numpy(part.spacings.astype(np.float32)).to(device)
        self._span = torch.arange(config.context, device=device)
        ahead = cut_positions(config) if config.layout == "postfix" else range(1, config.context + 1)
        self._ahead = torch.tensor(list(ahead), device=device)
        self._stride = config.eval_stride if config.layout == "postfix" else config.eval_tail
        self._device = device

    def starts(self, number: int, generator: torch.Generator) -> Int[Tensor, " number"]:
        """Starts of ``number`` training windows, uniform over all that fit."""
        return torch.randint(self.first, self.last + 1, (number,), generator=generator).to(self._device)

    def evaluated_starts(self) -> Int[Tensor, " windows"]:
        """Starts of the evaluation's windows.

        Without slots that read, at every ``eval_tail`` spacings, so that each spacing with a whole past is among the
        last ``eval_tail`` targets of exactly one window (a remainder at the end aside); else at every ``eval_stride``.
        """
        return torch.arange(self.first, self.last + 1, self._stride, device=self._device)

    def inputs(self, starts: Int[Tensor, " batch"]) -> Float[Tensor, "batch context channels"]:
        """Channels of the windows at ``starts``."""
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
