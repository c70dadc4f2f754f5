"""Which blocks a query selects: scores from the compressed attention, and the list of the best. No gradient passes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from trainables.nsa.sparsity import Sparsity

NONE = -1
"""In a list of blocks: no block, where fewer are visible than may be selected."""


def block_scores(
    attention: Float[Tensor, "*rest compressed"], sparsity: Sparsity, num_blocks: int
) -> Float[Tensor, "*rest blocks"]:
    """The attention of each selection block: that of the compressed blocks, counted as often as the two overlap.

    Both kinds are made of pieces of ``stride`` tokens. A compressed block has ``n`` of them, a selection block ``m``,
    and a pair counts once for each piece that it shares. So the scores are a strided convolution of the attention with
    the counts 1, 2, ..., 2, 1, and what lies outside is dropped.
    """
    m, n = sparsity.select_block // sparsity.stride, sparsity.block // sparsity.stride
    counts = [min(i + 1, m, n, m + n - 1 - i) for i in range(m + n - 1)]
    padded = F.pad(attention, (n - 1, num_blocks * m - attention.shape[-1]))
    return padded.unfold(-1, m + n - 1, m) @ torch.tensor(counts, dtype=attention.dtype, device=attention.device)


def choose_blocks(
    scores: Float[Tensor, "*rest queries blocks"], positions: Int[Tensor, " queries"], sparsity: Sparsity
) -> Int[Tensor, "*rest queries select"]:
    """The blocks that each query reads: the forced ones, then those of the highest scores, ties to the lower index.

    Args:
        scores: at least 0, of blocks from the first on.
        positions: of the queries.
        sparsity: how many are chosen.

    Returns:
        ``num_select`` indices, `NONE` where fewer blocks are visible.
    """
    num_blocks = scores.shape[-1]
    block = torch.arange(num_blocks, device=scores.device)
    newest = (positions // sparsity.select_block).unsqueeze(-1)
    visible = block <= newest
    forced = visible & ((block == 0) | (block > newest - sparsity.num_local))
    if num_blocks <= sparsity.num_select:
        best = block.expand(*scores.shape[:-1], num_blocks)
    else:
        ranked = scores.masked_fill(~visible, -1.0).masked_fill_(forced, torch.inf)
        best = largest(ranked, sparsity.num_select)
    best = best.masked_fill(best > newest, NONE)
    return F.pad(best, (0, sparsity.num_select - best.shape[-1]), value=NONE)


def largest(values: Float[Tensor, "*rest items"], number: int) -> Int[Tensor, "*rest number"]:
    """Indices of the largest values in order, of equal ones the lower index first; no value is below -1.

    A stable sort does that. In float32 a key of the value's bits and its index, which no two have in common, lets a
    partial sort do the same.
    """
    if values.dtype == torch.float64:
        return values.sort(dim=-1, descending=True, stable=True).indices[..., :number]
    # Floats that are not negative are ordered as their bits are; -1 is a negative integer as well.
    bits = values.float().contiguous().view(torch.int32).long()
    last = values.shape[-1] - 1
    key = (bits << 32) | (last - torch.arange(last + 1, device=values.device))
    return key.topk(number, dim=-1).indices
