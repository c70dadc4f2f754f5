"""The model: embedding, blocks of attention and a feed-forward layer, head; the same for sparse and dense attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainables.nsa.attention import Compression, DenseAttention, Gates, Seen, SparseAttention
from trainables.nsa.cache import DenseCache, SparseCache
from trainables.nsa.config import NSAConfig

_STD = 0.02
Caches = Sequence[SparseCache | DenseCache]


@dataclass(frozen=True)
class _Output:
    """Logits of the next token; what each layer did, where it was counted and attention is sparse."""

    logits: Float[Tensor, "batch time vocabulary"]
    seen: tuple[Seen, ...] = ()


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on normalised inputs and added to the stream."""

    def __init__(self, config: NSAConfig) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(config.width, eps=1e-6)
        self.attention = attention_of(config)
        self.norm_ffn = nn.RMSNorm(config.width, eps=1e-6)
        self.inner = nn.Linear(config.width, config.d_ff)
        self.outer = nn.Linear(config.d_ff, config.width)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        cache: SparseCache | DenseCache | None = None,
        counted: bool = False,
    ) -> tuple[Float[Tensor, "batch time width"], Seen | None]:
        """The stream after the block; what attention did, if it is to be counted."""
        mixed, seen = self.attention(self.norm_attention(x), cache, counted=counted)
        x = x + mixed
        return x + self.outer(F.gelu(self.inner(self.norm_ffn(x)))), seen


def attention_of(config: NSAConfig) -> SparseAttention | DenseAttention:
    """One layer's attention."""
    if config.attn == "dense":
        return DenseAttention(config.width, config.n_heads, config.kv_groups)
    return SparseAttention(
        config.width,
        config.n_heads,
        config.kv_groups,
        config.sparsity,
        phi=config.phi,
        gate=config.gate,
        selection=config.selection,
    )


class NSAModel(nn.Module):
    """See the module; built from a config alone."""

    def __init__(self, config: NSAConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self._initialise()

    def forward(
        self, ids: Int[Tensor, "batch time"], caches: Caches | None = None, *, counted: bool = False
    ) -> _Output:
        """Predict the token after each position; ``caches`` hold what came before, and take these tokens in."""
        x = self.tokens(ids)
        seen = []
        kept: Sequence[SparseCache | DenseCache | None] = caches or [None] * len(self.blocks)
        for block, cache in zip(self.blocks, kept, strict=True):
            if self.config.checkpointing and self.training:
                x, here = checkpoint(block, x, None, counted, use_reentrant=False)
            else:
                x, here = block(x, cache, counted)
            if here is not None:
                seen.append(here)
        return _Output(self.head(self.norm(x)), tuple(seen))

    def new_caches(self, batch: int, capacity: int) -> Caches:
        """Empty caches for ``capacity`` tokens, one a layer."""
        return [block.attention.new_cache(batch, capacity) for block in self.layers()]

    def layers(self) -> list[Block]:
        """The blocks, from the embedding on."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def _initialise(self) -> None:
        """N(0, 0.02); what ends in the stream is scaled by 1 / sqrt(2 depth); gates and compression as they begin."""
        nn.init.normal_(self.tokens.weight, std=_STD)
        nn.init.normal_(self.head.weight, std=_STD)
        out = _STD / math.sqrt(2 * self.config.depth)
        for block in self.layers():
            nn.init.normal_(block.attention.qkv.weight, std=_STD)
            nn.init.normal_(block.attention.out.weight, std=out)
            for layer, std in ((block.inner, _STD), (block.outer, out)):
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
            for module in block.attention.modules():
                if isinstance(module, Gates | Compression) and hasattr(module, "inner"):
                    nn.init.normal_(module.inner.weight, std=_STD)
                    nn.init.zeros_(module.inner.bias)
