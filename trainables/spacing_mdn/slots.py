"""Memory slots: learned vectors that stand beside the data, and the ways in which they are switched and permuted.

A slot's vector is its content plus an ID. Both are learned; under a permutation, content i carries ID ``order[i]``.
Slots have no positions of their own, so that permuted IDs leave nothing else to tell one slot from another by.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainables.spacing_mdn.blocks import INIT_STD


@dataclass(frozen=True)
class SlotControl:
    """How the slots are set in one forward pass. The defaults leave them as they were learned.

    Attributes:
        order: (slots,) which ID each content carries; None is its own.
        ids: False takes all IDs away (content only).
        content: False takes all contents away (ID only).
        keep: (batch, slots) or (1, slots), 1 for present and 0 for absent. An absent slot is zero in front of every
            block and has no share in the readout; None keeps all.
    """

    order: Int[Tensor, " slots"] | None = None
    ids: bool = True
    content: bool = True
    keep: Float[Tensor, "batch slots"] | None = None


PLAIN = SlotControl()


class SlotWeights(nn.Module):
    """A readout that has a learned number for each slot, whatever its state; all are 0 at first."""

    def __init__(self, n_slots: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_slots))

    def forward(self, states: Float[Tensor, "batch cuts slots width"]) -> Float[Tensor, "batch cuts slots 1"]:
        """The logits of the readout."""
        return self.weight.expand(states.shape[:-1]).unsqueeze(-1)


class Slots(nn.Module):
    """The contents and the IDs of ``n_slots`` slots."""

    def __init__(self, n_slots: int, width: int, norm_cap: float) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.randn(n_slots, width) * INIT_STD)
        self.ids = nn.Parameter(torch.randn(n_slots, width) * INIT_STD)
        self.norm_cap = norm_cap

    def forward(self, control: SlotControl = PLAIN) -> Float[Tensor, "slots width"]:
        """The slots' vectors: content + ID, shortened to ``norm_cap`` where they are longer and a cap is set."""
        ids = self.ids if control.order is None else self.ids[control.order]
        # Multiplied rather than left out, so that parameters without effect get a zero gradient and keep their place.
        vectors = self.content * float(control.content) + ids * float(control.ids)
        if self.norm_cap > 0.0:
            length = vectors.norm(dim=-1, keepdim=True)
            vectors = vectors * (self.norm_cap / length.clamp_min(self.norm_cap))
        return vectors
