"""The transformer block of the family, for data alone, slots before the data, and slots after it.

A pre-norm GPT block (self-attention, then a GELU MLP four times as wide) without biases. Dropout acts on what a block
adds to the stream, not on attention weights: that keeps attention in one fused kernel.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

INIT_STD = 0.02


def linear(width_in: int, width_out: int, *, std: float = INIT_STD, bias: bool = False) -> nn.Linear:
    """A linear layer, weights drawn from N(0, ``std``), its bias 0 where there is one."""
    layer = nn.Linear(width_in, width_out, bias=bias)
    nn.init.normal_(layer.weight, std=std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Attention and MLP over one sequence; which part is data and which slots is told to `forward`."""

    def __init__(self, width: int, n_heads: int, dropout: float, depth: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.qkv = linear(width, 3 * width)
        # Each block adds to the stream twice: scaled so that its variance at the end does not grow with the depth.
        residual_std = INIT_STD / math.sqrt(2 * depth)
        self.out = linear(width, width, std=residual_std)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.up = linear(width, 4 * width)
        self.down = linear(4 * width, width, std=residual_std)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        num_data: int | None = None,
        slot_mask: Bool[Tensor, "queries tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Run the block.

        Args:
            x: the stream.
            num_data: None makes every token see itself and those before it. A number T makes the first T tokens do
                so among themselves, and the tokens after them (slots) see everything that ``slot_mask`` lets them.
            slot_mask: True where a slot (row) sees a token; None lets slots see all tokens.
        """
        query, key, value = (self.heads(part) for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1))
        if num_data is None:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            # Two kernels and no mask over the whole square: causal for the data, open for the few slots.
            data = F.scaled_dot_product_attention(
                query[:, :, :num_data], key[:, :, :num_data], value[:, :, :num_data], is_causal=True
            )
            slots = F.scaled_dot_product_attention(query[:, :, num_data:], key, value, attn_mask=slot_mask)
            mixed = torch.cat((data, slots), dim=2)
        return self._finish(x, mixed)

    def slots_only(
        self,
        x: Float[Tensor, "batch tokens width"],
        num_data: int,
        slot_mask: Bool[Tensor, "queries tokens"] | None = None,
    ) -> Float[Tensor, "batch queries width"]:
        """The slots' part of `forward`: for the last block, after which the data's part is not read."""
        normed = self.attention_norm(x)
        width = x.shape[-1]
        query = self.heads(F.linear(normed[:, num_data:], self.qkv.weight[:width]))
        key, value = (self.heads(part) for part in F.linear(normed, self.qkv.weight[width:]).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=slot_mask)
        return self._finish(x[:, num_data:], mixed)

    def heads(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch heads tokens width_of_head"]:
        """Queries, keys or values as attention takes them."""
        return x.view(*x.shape[:-1], self.n_heads, -1).transpose(1, 2)

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        out: Tensor = x + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x)))))
        return out
