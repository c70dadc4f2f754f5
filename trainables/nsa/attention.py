"""Attention with grouped queries: native sparse (compressed, selected and window branches, mixed by gates) or dense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trainables.nsa.branches import KeyValues, Memory, Reads, Selection, takes_kernel, tile
from trainables.nsa.cache import DenseCache, SparseCache
from trainables.nsa.rope import rotate, rotation
from trainables.nsa.sparsity import Sparsity

Phi = Literal["mlp", "mean"]
GateKind = Literal["sigmoid", "softmax"]
_TILE = 4096
"""Queries at a time, so that memory stays bounded in long prompts."""


@dataclass(frozen=True)
class Seen:
    """What one layer did, for those who count.

    Attributes:
        reads: of all queries.
        gates: of each head's branches.
    """

    reads: Reads
    gates: Float[Tensor, "batch time head branch"]


class Compression(nn.Module):
    """One vector for a block of them: the mean, with ``mlp`` also what is learnt of the block in its order.

    The last layer begins at zero, so that both kinds begin as the mean.
    """

    def __init__(self, sparsity: Sparsity, dim: int, phi: Phi) -> None:
        super().__init__()
        self._block, self._stride = sparsity.block, sparsity.stride
        self.positions: nn.Parameter | None = None
        if phi == "mlp":
            self.positions = nn.Parameter(0.02 * torch.randn(sparsity.block, dim))
            self.inner = nn.Linear(sparsity.block * dim, 2 * dim)
            self.outer = nn.Linear(2 * dim, dim)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

    def forward(self, vectors: Float[Tensor, "batch group time dim"]) -> Float[Tensor, "batch group blocks dim"]:
        """Of each whole block from the first vector on."""
        blocks = vectors.unfold(2, self._block, self._stride).mT  # batch, group, blocks, block, dim
        mean = blocks.mean(dim=3)
        if self.positions is None:
            return mean
        # inner(block + positions), with the part that is the same for every block taken out.
        shared = F.linear(self.positions.flatten(), self.inner.weight, self.inner.bias)
        learnt: Tensor = self.outer(F.gelu(F.linear(blocks.flatten(3), self.inner.weight) + shared))
        return mean + learnt


class Gates(nn.Module):
    """How much of each branch a head takes: a small network of the input, even over the branches when it begins."""

    def __init__(self, width: int, n_heads: int, kind: GateKind) -> None:
        super().__init__()
        self.kind = kind
        self.inner = nn.Linear(width, max(8, width // 8))
        self.outer = nn.Linear(max(8, width // 8), 3 * n_heads)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time head branch"]:
        """In the order compressed, selected, window."""
        raw: Tensor = self.outer(F.gelu(self.inner(x))).view(*x.shape[:2], -1, 3)
        return raw.sigmoid() if self.kind == "sigmoid" else raw.softmax(dim=-1)


class SparseAttention(nn.Module):
    """Native sparse attention (arXiv 2502.11089), causal. Each branch has keys and values of its own.

    Args:
        width: of the stream.
        n_heads: of queries.
        groups: of heads that share keys and values.
        sparsity: sizes of the branches.
        phi: how blocks are compressed.
        gate: how branches are mixed.
        selection: how selected blocks are fetched; all ways give the same.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        groups: int,
        sparsity: Sparsity,
        *,
        phi: Phi = "mlp",
        gate: GateKind = "sigmoid",
        selection: Selection = "auto",
    ) -> None:
        super().__init__()
        self.n_heads, self.groups, self.dim = n_heads, groups, width // n_heads
        self.sparsity, self.selection = sparsity, selection
        self.fallbacks = 0
        """Passes on a GPU whose shapes the kernel did not take."""
        # Queries, keys of selection and window, keys that are compressed, values in the same order.
        self.qkv = nn.Linear(width, (n_heads + 6 * groups) * self.dim, bias=False)
        self.key_phi = Compression(sparsity, self.dim, phi)
        self.value_phi = Compression(sparsity, self.dim, phi)
        self.gates = Gates(width, n_heads, gate)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], cache: SparseCache | None = None, *, counted: bool = False
    ) -> tuple[Float[Tensor, "batch time width"], Seen | None]:
        """The tokens after those in ``cache``, which takes them in; what was read, if it is to be counted."""
        start = 0 if cache is None else cache.length
        queries, memory = self._projected(x, start, cache)
        if queries.is_cuda and self.selection != "union" and not takes_kernel(queries, self.sparsity):
            self.fallbacks += 1
        gates = self.gates(x)
        parts, reads = [], []
        for first in range(0, x.shape[1], _TILE):
            some = queries[:, :, :, first : first + _TILE]
            outputs, read = tile(some, start + first, memory, self.sparsity, self.selection, counted=counted)
            parts.append(outputs)
            if read is not None:
                reads.append(read)
        branches = torch.cat(parts, dim=4) if len(parts) > 1 else parts[0]
        weights = gates.permute(3, 0, 2, 1).unsqueeze(-1)  # branch, batch, head, time, 1
        mixed = (branches.flatten(2, 3) * weights).sum(dim=0)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        if not counted:
            return result, None
        blocks = torch.cat([read.blocks for read in reads], dim=2)
        counts = torch.cat([read.counts for read in reads], dim=3)
        return result, Seen(Reads(blocks, counts), gates.detach())

    def new_cache(self, batch: int, capacity: int) -> SparseCache:
        """An empty cache for ``capacity`` tokens."""
        return SparseCache((batch, self.groups), self.dim, capacity, self.sparsity, like=self.out.weight)

    def _projected(self, x: Tensor, start: int, cache: SparseCache | None) -> tuple[Tensor, Memory]:
        heads = self.qkv(x).unflatten(-1, (-1, self.dim)).transpose(1, 2)
        turned = self.n_heads + 2 * self.groups
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        vectors = rotate(heads[:, :turned], rotation(positions, self.dim, x.dtype))
        queries = vectors[:, : self.n_heads]
        selected_k, window_k = vectors[:, self.n_heads :].chunk(2, dim=1)
        raw_k, raw_v, selected_v, window_v = heads[:, turned:].chunk(4, dim=1)
        queries = (queries / math.sqrt(self.dim)).view(len(x), self.groups, -1, x.shape[1], self.dim)
        raw, selected, window = (raw_k, raw_v), (selected_k, selected_v), (window_k, window_v)
        if cache is not None:
            return queries, cache.extend(raw, selected, window, self._compress)
        short = -x.shape[1] % self.sparsity.select_block
        keys, values = (F.pad(part, (0, 0, 0, short)) for part in selected)
        return queries, Memory(self._compress(raw, 0), (keys, values), window)

    def _compress(self, raw: KeyValues, first: int) -> KeyValues:
        """Compressed keys, turned to the positions at which their blocks end, and values; ``first`` is the first's."""
        sizes = self.sparsity
        number = sizes.num_compressed(raw[0].shape[2])
        if not number:
            empty = raw[0][:, :, :0]
            return empty, empty
        block = torch.arange(first, first + number, device=raw[0].device)
        ends = block * sizes.stride + sizes.block - 1
        keys, values = self.key_phi(raw[0]), self.value_phi(raw[1])
        return rotate(keys, rotation(ends, self.dim, keys.dtype)), values


class DenseAttention(nn.Module):
    """The twin that every claim about sparse attention is held against: all tokens so far, by a fused kernel."""

    def __init__(self, width: int, n_heads: int, groups: int) -> None:
        super().__init__()
        self.n_heads, self.groups, self.dim = n_heads, groups, width // n_heads
        self.qkv = nn.Linear(width, (n_heads + 2 * groups) * self.dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], cache: DenseCache | None = None, *, counted: bool = False
    ) -> tuple[Float[Tensor, "batch time width"], None]:
        """As `SparseAttention`; there is nothing to count."""
        start = 0 if cache is None else cache.length
        heads = self.qkv(x).unflatten(-1, (-1, self.dim)).transpose(1, 2)
        turned = self.n_heads + self.groups
        positions = torch.arange(start, start + x.shape[1], device=x.device)
        vectors = rotate(heads[:, :turned], rotation(positions, self.dim, x.dtype))
        queries, keys = vectors[:, : self.n_heads], vectors[:, self.n_heads :]
        values = heads[:, turned:]
        mask = None
        if cache is not None:
            keys, values = cache.extend((keys, values))
            if start and x.shape[1] > 1:
                mask = torch.arange(keys.shape[2], device=x.device) <= positions.unsqueeze(1)
        if x.shape[1] == 1:
            # The heads of a group as if they were so many queries: nothing that was kept is copied.
            mixed = F.scaled_dot_product_attention(queries.reshape(len(x), self.groups, -1, self.dim), keys, values)
            mixed = mixed.reshape(queries.shape)
        else:
            keys, values = (part.repeat_interleave(self.n_heads // self.groups, dim=1) for part in (keys, values))
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result, None

    def new_cache(self, batch: int, capacity: int) -> DenseCache:
        """An empty cache for ``capacity`` tokens."""
        return DenseCache((batch, self.groups), self.dim, capacity, like=self.out.weight)
