"""The model: embeddings, one block applied over and over (or a block for each depth), a head.

Pre-norm residual blocks of causal attention and a feed-forward part that is a mixture of experts or dense.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainables.shared_moe.config import SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.routing import Router, Routing

_STD = 0.02


@dataclass(frozen=True)
class _Output:
    """Logits of the next token; ``routing`` is None for a dense model."""

    logits: Float[Tensor, "batch time vocabulary"]
    routing: Routing | None


class Attention(nn.Module):
    """Causal multi-head self-attention with biases."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Each position sees itself and what came before."""
        batch, time, width = x.shape
        heads = self.qkv(x).view(batch, time, 3, self.n_heads, width // self.n_heads).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return result


class Dense(nn.Module):
    """Linear-GELU-Linear."""

    def __init__(self, width: int, hidden: int, gelu_approximate: str = "none") -> None:
        super().__init__()
        self.gelu_approximate = gelu_approximate
        self.inner = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """The same for every token."""
        result: Tensor = self.out(F.gelu(self.inner(x), approximate=self.gelu_approximate))
        return result


class Mixture(nn.Module):
    """A router and its experts."""

    def __init__(self, config: SharedMoEConfig) -> None:
        super().__init__()
        self.router = Router(config.width, config.num_experts, config.top_k, config.gate)
        self.experts = Experts(config.num_experts, config.width, config.d_ff, config.gelu_approximate)

    def forward(
        self, x: Float[Tensor, "batch time width"], dropped: Bool[Tensor, " experts"] | None = None
    ) -> tuple[Float[Tensor, "batch time width"], Tensor, Tensor, Tensor]:
        """The mixture's output; assignments, importance and squared logsumexp of the router."""
        tokens = x.flatten(0, 1)
        choice = self.router(tokens, dropped)
        mixed, counts = self.experts(tokens, choice.experts, choice.weights)
        return mixed.view_as(x), counts, choice.importance, choice.squared_logsumexp


class Block(nn.Module):
    """Attention, then a mixture of experts or a dense layer, each on normalised inputs and added to the stream."""

    def __init__(self, config: SharedMoEConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.n_heads)
        self.norm_ffn = nn.LayerNorm(config.width)
        dense = config.ffn == "dense"
        self.ffn: Mixture | Dense = (
            Dense(config.width, config.d_ff, config.gelu_approximate) if dense else Mixture(config)
        )

    def forward(
        self, x: Float[Tensor, "batch time width"], dropped: Bool[Tensor, " experts"] | None = None
    ) -> tuple[Float[Tensor, "batch time width"], tuple[Tensor, Tensor, Tensor] | None]:
        """The stream after the block, and what its router did."""
        x = x + self.attention(self.norm_attention(x))
        if isinstance(self.ffn, Dense):
            return x + self.ffn(self.norm_ffn(x)), None
        mixed, *routed = self.ffn(self.norm_ffn(x), dropped)
        return x + mixed, (routed[0], routed[1], routed[2])


class SharedMoE(nn.Module):
    """See the module; built from a config alone."""

    def __init__(self, config: SharedMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(config.context, config.width))
        self.depths = nn.Parameter(torch.empty(config.depth, config.width)) if config.depth_embedding else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(1 if config.blocks == "shared" else config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self._initialise()

    def forward(self, ids: Int[Tensor, "batch time"], dropped: Bool[Tensor, " experts"] | None = None) -> _Output:
        """Predict the token after each of at most ``context`` positions; no router may choose a ``dropped`` expert."""
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        routed = []
        with ExitStack() as passing:
            for mixture in self.mixtures():
                passing.enter_context(mixture.experts.cast_once())
            for depth in range(self.config.depth):
                if self.depths is not None:
                    x = x + self.depths[depth]
                x, here = self.block(depth)(x, dropped)
                if here is not None:
                    routed.append(here)
        routing = Routing(*(torch.stack(parts) for parts in zip(*routed, strict=True))) if routed else None
        vectors = self.tokens.weight if self.head is None else self.head.weight
        return _Output(F.linear(self.norm(x), vectors), routing)

    def block(self, depth: int) -> Block:
        """The block that is applied at ``depth``."""
        block = self.blocks[0 if self.config.blocks == "shared" else depth]
        assert isinstance(block, Block)
        return block

    def routers(self) -> list[Router]:
        """The router of each block; none in a dense model."""
        return [mixture.router for mixture in self.mixtures()]

    def mixtures(self) -> list[Mixture]:
        """The mixture of each block; none in a dense model."""
        return [block.ffn for block in map(self.block, range(len(self.blocks))) if isinstance(block.ffn, Mixture)]

    def _initialise(self) -> None:
        """N(0, 0.02); what ends in the stream is scaled by 1 / sqrt(2 depth); biases 0; norms as torch has them."""
        out = _STD / math.sqrt(2 * self.config.depth)
        nn.init.normal_(self.tokens.weight, std=_STD)
        nn.init.normal_(self.positions, std=_STD)
        if self.depths is not None:
            nn.init.normal_(self.depths, std=_STD)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_STD)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Experts):
                nn.init.normal_(module.w_in, std=_STD)
                nn.init.normal_(module.w_out, std=out)
                nn.init.zeros_(module.b_in)
                nn.init.zeros_(module.b_out)
        for module in self.blocks.modules():
            if isinstance(module, Attention | Dense):
                nn.init.normal_(module.out.weight, std=out)
        if self.head is not None:
            with torch.no_grad():
                self.head.weight.copy_(self.tokens.weight)
