"""The slots of a postfix model, run again and again over windows whose data are read once.

What it is: in layout ``postfix`` data never see slots, so their keys and values in every block are the same whatever
the slots are. They are computed once, and a run of other slots costs a run of a few tokens, with gradients or without.
What it is not: another model. A test holds it to the model's own predictions, and layouts in which data see slots are
refused.

Only the last group of slots is run: it sees the whole window, and its prediction is the one that sampled windows score.
All is computed in float32, also where evaluation is not; compare its results with each other.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from trainables.spacing_mdn.blocks import Block
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.model import Prediction, SpacingModel, _normalise
from trainables.spacing_mdn.slots import PLAIN, SlotControl
from trainables.spacing_mdn.task import SpacingTask

_MAX_FLOATS = 1 << 26


class SlotPass:
    """Windows of one postfix model with their data read.

    Args:
        task: the model.
        inputs: windows, no more at once than `windows_at_once` says.

    Raises:
        ValueError: the layout is not postfix.
    """

    def __init__(self, task: SpacingTask, inputs: Float[Tensor, "batch context channels"]) -> None:
        if task.config.layout != "postfix":
            raise ValueError(f"layout = {task.config.layout!r}: allowed is 'postfix', where no data see slots")
        self._model: SpacingModel = task.model
        seen = attention_inputs(task, inputs, PLAIN)  # the data's part of it is the same under any control
        self._number = len(inputs)
        self._center: Tensor | float = 1.0
        self._scale: Tensor | float = 1.0
        if task.config.block_norm:
            inputs, self._center, self._scale = _normalise(inputs)
        self._guess = inputs[:, -1:, 2] if task.config.ar_features else None
        length, width = task.config.context, task.config.width
        self._past = []
        for block, normed in zip(blocks(task.model), seen, strict=True):
            both = F.linear(normed[:, :length], block.qkv.weight[width:].detach())
            key, value = both.chunk(2, dim=-1)
            self._past.append((heads(key, block), heads(value, block)))

    def slots(self, control: SlotControl) -> Float[Tensor, "slots width"]:
        """The last group's vectors in front of the first block; no gradient goes back to the parameters."""
        assert self._model.slots is not None
        vectors: Tensor = self._model.slots(control).detach()
        return vectors + self._model.positions[-1].detach() if self._model.config.query_cuts > 1 else vectors

    def predict(self, slots: Float[Tensor, "#batch sets slots width"]) -> Prediction:
        """What the model says of the spacing after each window with each set of vectors as its slots.

        Args:
            slots: vectors in front of the first block, ``sets`` of them for each window, or the same for all windows.
                Sets do not see one another. Gradients flow to them.

        Returns:
            One prediction a set, where a model has one a cut; no auxiliary outputs.
        """
        model = self._model
        assert model.readout is not None
        x = slots.expand(self._number, -1, -1, -1)
        for block, (key, value) in zip(blocks(model), self._past, strict=True):
            x = x + block.out(_attend(block, block.qkv(block.attention_norm(x)), key, value))
            x = x + block.down(F.gelu(block.up(block.mlp_norm(x))))
        states = model.norm(x)
        weights = model.readout(states).squeeze(-1).softmax(dim=-1)
        pooled = (weights.unsqueeze(-1) * states).sum(dim=2)
        mixture = model._mixture(pooled, self._guess, self._center, self._scale)
        return Prediction(*mixture, states, weights)


def windows_at_once(config: SpacingConfig) -> int:
    """How many windows' normed inputs, keys and values of all blocks fit into 256 MiB; at most 32."""
    floats = 3 * config.depth * config.width * (config.context + config.n_slots)
    return int(min(max(_MAX_FLOATS // floats, 1), 32))


def blocks(model: SpacingModel) -> list[Block]:
    """The model's blocks, first to last."""
    return [cast(Block, block) for block in model.blocks]


def heads(x: Float[Tensor, "... tokens width"], block: Block) -> Float[Tensor, "... heads tokens width_of_head"]:
    """Queries, keys or values as attention takes them."""
    return x.view(*x.shape[:-1], block.n_heads, -1).transpose(-3, -2)


def _attend(
    block: Block, qkv: Float[Tensor, "batch sets slots width3"], key: Tensor, value: Tensor
) -> Float[Tensor, "batch sets slots width"]:
    """What each slot takes from the window's data (``key``, ``value``) and from its own set, softmax over both."""
    query, own_key, own_value = (heads(part, block) for part in qkv.chunk(3, dim=-1))
    query = query / math.sqrt(query.shape[-1])
    batch, sets, n_heads, number, size = query.shape
    # All sets of a window as one matrix: its keys are read once, and nothing of the data is copied.
    rows = query.transpose(1, 2).flatten(2, 3)
    to_data = (rows @ key.transpose(-2, -1)).view(batch, n_heads, sets, number, -1).transpose(1, 2)
    weights = torch.cat((to_data, query @ own_key.transpose(-2, -1)), dim=-1).softmax(dim=-1)
    length = key.shape[-2]
    from_data = weights[..., :length].transpose(1, 2).flatten(2, 3) @ value
    mixed = from_data.view(batch, n_heads, sets, number, size).transpose(1, 2) + weights[..., length:] @ own_value
    joined: Tensor = mixed.transpose(2, 3).flatten(3)
    return joined


def attention_inputs(
    task: SpacingTask, inputs: Float[Tensor, "batch context channels"], control: SlotControl
) -> list[Float[Tensor, "batch tokens width"]]:
    """Per block, what attention's queries, keys and values are made of in a pass of the whole model.

    (batch, context + slots, width) float32: the data, then the slots of the last group, which sees all of both.
    """
    kept: list[Tensor] = []
    hooks = [
        block.attention_norm.register_forward_hook(lambda module, args, out: kept.append(out))
        for block in blocks(task.model)
    ]
    try:
        task.predict(inputs, control)
    finally:
        for hook in hooks:
            hook.remove()
    length, number = task.config.context, task.config.n_slots
    return [torch.cat((normed[:, :length], normed[:, -number:]), dim=1).float() for normed in kept]
