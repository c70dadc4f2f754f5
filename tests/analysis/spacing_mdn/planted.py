"""Winners whose means are known: models that compute what they are told to, and series on which they win."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.analysis.spacing_mdn.set_by_hand import FIRST, make, zeta_heights
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.model import Prediction, SpacingModel
from trainables.spacing_mdn.slots import PLAIN, SlotControl
from trainables.spacing_mdn.task import SpacingTask

MLP: dict[str, Any] = {
    "layout": "mlp",
    "n_slots": 0,
    "aux_mode": "off",
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
}
"""Overrides of preset ``tiny``: no slots and no attention."""
SIGMA = 0.2
Series = NDArray[np.float64]


def in_three(series: Series, blocks: tuple[int, int, int] = (20, 20, 20)) -> SpacingData:
    """A series cut into train, val and test, at heights of zeta zeros."""
    heights = zeta_heights(FIRST, sum(blocks))
    cuts = np.cumsum([0, *blocks])
    parts = [Part(series[low * BLOCK : high * BLOCK], heights[low:high]) for low, high in pairwise(cuts)]
    return SpacingData("first100k", *parts, "")


def drawn(mean: Callable[[float, float], float], sigma: float = SIGMA, num_blocks: int = 60) -> Series:
    """A series whose spacings less 1 are Gaussian about ``mean`` of the last and the one before, each less 1."""
    rng, series = np.random.default_rng(4), np.zeros(num_blocks * BLOCK)
    for at in range(2, len(series)):
        series[at] = mean(series[at - 1], series[at - 2]) + sigma * rng.normal()
    return 1.0 + series


class Planted(SpacingModel):
    """Gaussians whose means are a function of the last two spacings, each less 1."""

    def __init__(self, task: SpacingTask, mean: Callable[[Tensor, Tensor], Tensor], sigma: float) -> None:
        super().__init__(task.config)
        self._mean, self._sigma = mean, sigma

    def forward(self, inputs: Tensor, control: SlotControl = PLAIN) -> Prediction:
        if self.config.layout == "mlp":
            last, before = inputs[..., self.config.context - 1], inputs[..., self.config.context - 2]
        else:
            last, before = inputs[..., 0], inputs[..., 0].roll(1, dims=1)
        mu = (1.0 + self._mean(last, before)).unsqueeze(-1)
        return Prediction(torch.zeros_like(mu), mu, torch.full_like(mu, self._sigma))


def planted(
    data: SpacingData, mean: Callable[[Tensor, Tensor], Tensor], sigma: float = SIGMA, /, **overrides: object
) -> SpacingTask:
    """A task over ``data`` whose model is `Planted`."""
    task = make(data, **(MLP | overrides))
    task.model = Planted(task, mean, sigma).eval()
    return task
