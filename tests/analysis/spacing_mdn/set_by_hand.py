"""Splits and models whose densities are known: an autoregression with noise of two peaks, and weights set by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter

from trainables.registry import build_config, get_family
from trainables.spacing_mdn import task as task_module
from trainables.spacing_mdn.blocks import Block
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.task import SpacingTask

FIRST = 2_000_000
"""Zeros below the data: so many that frequencies hardly move along them."""
PEAK, WIDTH = 0.14, 0.05
"""The noise: half of it about each of +-PEAK, with this standard deviation."""

PLAIN = {
    "layout": "none",
    "n_slots": 0,
    "aux_mode": "off",
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
}
"""Overrides of preset ``tiny``: no slots, a prediction at every position."""


def zeta_heights(first: int, num_blocks: int) -> NDArray[np.float64]:
    """log(g / 2 pi) where the smooth count of zeros is first, first + 256, ..."""
    wanted = first + BLOCK * np.arange(num_blocks)
    log_height = np.full(num_blocks, 9.0)
    for _ in range(60):  # g / (2 pi) (ln(g / 2 pi) - 1) = count, as a fixed point
        log_height = np.log(wanted / (log_height - 1.0))
    return log_height


def two_peaked(num_blocks: int, seed: int, widths: float | NDArray[np.float64] = WIDTH) -> NDArray[np.float64]:
    """An autoregression of order 2 about 1 with two-peaked noise; ``widths`` may differ from spacing to spacing."""
    rng = np.random.default_rng(seed)
    number = num_blocks * BLOCK
    noise = PEAK * rng.choice([-1.0, 1.0], number) + widths * rng.normal(size=number)
    series: NDArray[np.float64] = 1.0 + lfilter([1.0], [1.0, 0.4, -0.2], noise)
    return series


def as_data(train: NDArray[np.float64], val: NDArray[np.float64]) -> SpacingData:
    """Two splits, one after the other, at heights of zeta zeros; test repeats val."""
    heights = zeta_heights(FIRST, (len(train) + len(val)) // BLOCK)
    cut = len(train) // BLOCK
    above = Part(val, heights[cut:])
    return SpacingData("first100k", Part(train, heights[:cut]), above, above, "")


def make(data: SpacingData, /, **overrides: object) -> SpacingTask:
    """A task of preset ``tiny`` over ``data``, with the overrides."""
    torch.set_num_threads(1)
    config = build_config(get_family("spacing_mdn"), overrides, preset="tiny")
    with patch.object(task_module, "load", lambda name, data_dir: data):
        return SpacingTask(config, seed=0, device="cpu", data_dir=Path("unused"))


@torch.no_grad()
def say(task: SpacingTask, means: Sequence[float], sigma: float) -> None:
    """Set a model without slots to one mixture everywhere, of equal weights, about its guess if it has one."""
    model, width = task.model, task.config.width
    direction = torch.tensor([1.0, -1.0] * (width // 2))  # what a LayerNorm leaves as it is
    model.embed.weight.zero_()
    model.positions.copy_(direction.expand_as(model.positions))
    for block in (cast(Block, block) for block in model.blocks):
        block.out.weight.zero_()
        block.down.weight.zero_()
    raw_sigma = float(np.log(np.expm1(sigma - 1e-4)))
    # Without a guess the head's means go through a softplus.
    raw_means = means if task.config.ar_features else [float(np.log(np.expm1(mean))) for mean in means]
    outputs = torch.tensor([*[0.0] * len(means), *raw_means, *[raw_sigma] * len(means)])
    model.head.weight.copy_(outputs.unsqueeze(1) * direction / width)
