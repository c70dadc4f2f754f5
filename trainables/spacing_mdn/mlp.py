"""The small network of layout ``mlp``: it reads one position, whose features have the past in them."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainables.spacing_mdn.config import SpacingConfig, num_channels


class Mlp(nn.Module):
    """``depth`` hidden layers of ``width`` units with GELU and dropout; biases, and torch's own start."""

    def __init__(self, config: SpacingConfig) -> None:
        super().__init__()
        widths = [num_channels(config), *[config.width] * config.depth]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: Float[Tensor, "batch positions channels"]) -> Float[Tensor, "batch positions width"]:
        """States for the mixture's head."""
        for layer in self.layers:
            inputs = self.dropout(nn.functional.gelu(layer(inputs)))
        return inputs


def mixture_head(width: int, n_components: int) -> nn.Linear:
    """The head on these states: components begin side by side, one spread apart or less, not one on another."""
    head = nn.Linear(width, 3 * n_components)
    with torch.no_grad():
        head.bias[:n_components].zero_()
        head.bias[n_components : 2 * n_components] = torch.linspace(-1.0, 1.0, n_components)
        head.bias[2 * n_components :].zero_()
    return head
