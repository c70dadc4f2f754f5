"""Models of slots with known answers, their weights set by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.spacing_mdn.blocks import Block
from trainables.spacing_mdn.task import SpacingTask

BUILT = {"layout": "postfix", "context": 16, "eval_tail": 8, "width": 8, "depth": 1, "n_components": 1}
SWITCHES = {"aux_mode": "off", "slot_id_mode": "fixed", "eval_slot_id_mode": "fixed", "slot_dropout": 0.0}
FIELDS = {**BUILT, **SWITCHES}
"""Of a task whose weights `set_slots` can set."""
NO_SLOTS = {**FIELDS, "layout": "none", "n_slots": 0}


def basis(width: int) -> Tensor:
    """(width - 1, width) orthonormal rows that each sum to zero, so that a LayerNorm only scales them."""
    rows = np.linalg.qr(np.column_stack([np.ones(width), np.eye(width)[:, 1:]]))[0].T[1:]
    return torch.tensor(rows, dtype=torch.float32)


def set_slots(
    task: SpacingTask, directions: Sequence[int], means: Sequence[float], spread: float = 0.3, first: float = 0.0
) -> SpacingTask:
    """Slot i stands on axis ``directions[i]`` of `basis`, and its state asks for the mean ``means[i]``.

    Blocks add nothing, so that states are the slots' vectors and data are ignored. What is read out is the weighted
    mean of what slots ask for: weights are even, or slots on axis 0 have the logit ``first`` and the others 0.

    Args:
        task: of `FIELDS`, with as many slots as ``directions`` has entries.
        directions: axis of each slot; slots on the same axis have to ask for the same.
        means: before the softplus, each.
        spread: standard deviation, before the softplus, of all.
        first: the readout's preference.
    """
    model, width = task.model, task.config.width
    axes, scale = basis(width), width**-0.5  # a normed state has length sqrt(width)
    head = torch.zeros(3, width)
    for axis, mean in dict(zip(directions, means, strict=True)).items():
        head += torch.tensor([0.0, mean, spread]).unsqueeze(1) * axes[axis] * scale
    block = model.blocks[0]
    assert isinstance(block, Block)
    assert model.slots is not None
    assert model.readout is not None
    with torch.no_grad():
        block.out.weight.zero_()
        block.down.weight.zero_()
        model.head.weight.copy_(head)
        model.slots.content.copy_(axes[list(directions)])
        model.slots.ids.zero_()
        model.readout.weight.copy_(first * scale * axes[:1])
    return task


def spoiled(task: SpacingTask) -> SpacingTask:
    """Nothing finite comes out."""
    with torch.no_grad():
        task.model.norm.weight.fill_(torch.nan)
        if task.model.slots is not None:
            task.model.slots.content.fill_(torch.nan)
    return task


def stirred(task: SpacingTask, amount: float = 0.3) -> SpacingTask:
    """Random weights large enough that data and slots matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return task
