"""Models of experts with known answers, their weights set by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.analysis.spacing_mdn.slot_models import basis
from tests.trainables.shared_moe.configs import NO_AUX
from trainables.language.sample import Sample, draw
from trainables.shared_moe.config import SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import Mixture
from trainables.shared_moe.task import SharedMoETask

Array = NDArray[np.float64]

BY_HAND: dict[str, Any] = {**NO_AUX, "z_loss_coef": 0.0, "gate": "sigmoid", "depth_embedding": False}
"""Overrides of preset ``tiny`` (16 positions, width 16, 2 applications): experts' weights do not hang on each other."""
SURE = 30.0
"""A logit of which the sigmoid is 1."""


@dataclass(frozen=True)
class Subject:
    """One model and the sequences that it is looked at on."""

    config: SharedMoEConfig
    task: SharedMoETask
    sample: Sample[SharedMoETask]
    family: str = "shared_moe"


def subject(task: SharedMoETask, number: int = 64) -> Subject:
    """What a diagnostic is called with: a task as it is, and ``number`` sequences."""
    return Subject(task.config, task, draw(task, number=number))


def mixture(task: SharedMoETask, depth: int = 0) -> Mixture:
    """The experts of the block at a depth."""
    ffn = task.model.block(depth).ffn
    assert isinstance(ffn, Mixture)
    return ffn


@torch.no_grad()
def blank(task: SharedMoETask) -> SharedMoETask:
    """Nothing is written into the stream, and all tokens are equally likely."""
    for module in task.model.modules():
        own = [] if isinstance(module, nn.LayerNorm) else module.parameters(recurse=False)
        for parameter in own:
            parameter.zero_()
    return task


@torch.no_grad()
def by_position(task: SharedMoETask, logits: Sequence[Sequence[float]]) -> SharedMoETask:
    """A blank model whose router gives position t the row t modulo the number of rows of ``logits``.

    Position t stands on an axis of `basis`; what experts write on other axes only scales the logits down.
    """
    width, rows = task.config.width, torch.tensor(logits)
    axes = basis(width)[: len(rows)]
    blank(task).model.positions.copy_(axes[torch.arange(task.config.context) % len(rows)])
    mixture(task).router.linear.weight.copy_(rows.T @ axes / math.sqrt(width))
    return task


@torch.no_grad()
def by_depth(task: SharedMoETask, logits: Sequence[Sequence[float]]) -> SharedMoETask:
    """A blank model whose router gives every token of a depth that depth's row of ``logits``."""
    width, rows = task.config.width, torch.tensor(logits)
    axes = basis(width)[: len(rows)]
    depths = blank(task).model.depths
    assert depths is not None
    depths.copy_(axes.diff(dim=0, prepend=torch.zeros(1, width)))  # so that the stream stands on one axis at a time
    mixture(task).router.linear.weight.copy_(rows.T @ axes / math.sqrt(width))
    return task


@torch.no_grad()
def speak(task: SharedMoETask, says: Sequence[Tensor | None], first_axis: int) -> SharedMoETask:
    """Expert e makes the logits of tokens ``says[e]`` where all applications go to it, or writes nothing (None).

    Args:
        task: of `by_position`, whose positions leave the axes from ``first_axis`` on free; one choice a token writes.
        says: (vocabulary,) for each expert.
        first_axis: of the experts' own.
    """
    width, depth = task.config.width, task.config.depth
    axes, experts = basis(width)[first_axis:], mixture(task).experts
    assert isinstance(experts, Experts)
    assert task.model.head is not None
    # A position's axis and depth times an expert's: of that length before the norm, and sqrt(width) after it.
    scale = math.sqrt(1.0 + depth**2) / (depth * math.sqrt(width))
    for expert, logits in enumerate(says):
        if logits is not None:
            experts.b_out[expert] = axes[expert]
            task.model.head.weight += scale * torch.outer(logits, axes[expert])
    return task


def fitted(sample: Sample[SharedMoETask], group: int = 0, groups: int = 1) -> Tensor:
    """Log frequencies of the targets at positions that are ``group`` modulo ``groups``, a little smoothed."""
    targets = sample.sequences[:, 1:][:, group::groups].flatten()
    counts = torch.bincount(targets, minlength=sample.task.config.vocab_size).float()
    return (counts + 0.01).log()


def losses(sample: Sample[SharedMoETask], logits: Tensor) -> Array:
    """(sequences, positions) nats that these logits cost everywhere."""
    log_p = logits.double().log_softmax(dim=0)
    return -log_p[sample.sequences[:, 1:]].numpy()


def even(num: int, top_k: int = 2, experts: int | None = None) -> list[list[float]]:
    """Logits of ``num`` rows: row r goes to experts r, r + 1 ... (``top_k`` of them) modulo ``num``."""
    rows = np.zeros((num, experts or num))
    for choice in range(top_k):
        rows[np.arange(num), (np.arange(num) + choice) % num] = SURE - choice
    rows[:, num:] = -SURE
    listed: list[list[float]] = rows.tolist()
    return listed
