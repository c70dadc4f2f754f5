"""Sparse attention once more, slow and plain: masks over all pairs of positions, block by block, in float64.

What it is not: used in training. Tests compare `trainables.nsa` with it, values, gradients and lists. It is written
from the definitions and shares no code with what it checks, except the names of parameters. Gradients reach the
parameters that were given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.nsa.attention import DenseAttention, SparseAttention

Lists = list[list[list[list[int]]]]
"""By sequence, group and position: the selected blocks in ascending order."""


@dataclass(frozen=True)
class SlowOutput:
    """Of one layer: its output, each branch's before the gates (batch, head, time, dim), and the lists."""

    output: Tensor
    branches: tuple[Tensor, Tensor, Tensor]
    lists: Lists


def turned(vector: Tensor, position: int) -> Tensor:
    """A vector of D entries with rotary position: entries i and i + D/2 as a point in the plane."""
    half = len(vector) // 2
    angles = [position * 10_000.0 ** (-2 * i / len(vector)) for i in range(half)]
    cos, sin = (torch.tensor([f(angle) for angle in angles], dtype=vector.dtype) for f in (math.cos, math.sin))
    first, second = vector[:half], vector[half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos])


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Masked softmax attention of (time, dim) queries; rows without any key give 0. Output and probabilities."""
    logits = queries @ keys.T / math.sqrt(queries.shape[1])
    weights = torch.exp(logits - logits.detach().amax(dim=1, keepdim=True)) * mask
    total = weights.sum(dim=1, keepdim=True)
    probabilities = weights / torch.where(total > 0.0, total, 1.0)
    return probabilities @ values, probabilities


def chosen_blocks(attention: list[float], position: int, layer: SparseAttention) -> list[int]:
    """The list of one query, from its group's attention to compressed blocks; pairs of pieces counted one by one."""
    sizes = layer.sparsity
    newest = position // sizes.select_block
    scores = []
    for j in range(newest + 1):
        score = 0.0
        for m in range(sizes.select_block // sizes.stride):
            for n in range(sizes.block // sizes.stride):
                i = sizes.select_block // sizes.stride * j + m - n
                score += attention[i] if 0 <= i < len(attention) else 0.0
        scores.append(score)
    forced = {0, *(j for j in range(newest - sizes.num_local + 1, newest + 1) if j >= 0)}
    free = sorted((j for j in range(newest + 1) if j not in forced), key=lambda j: (-scores[j], j))
    return sorted([*forced, *free[: sizes.num_select - len(forced)]])


def slow_attention(layer: SparseAttention, x: Tensor) -> SlowOutput:
    """`SparseAttention.forward` of sequences from their beginning on."""
    results = [_one_sequence(layer, sequence) for sequence in x.double()]
    branches = tuple(torch.stack([result.branches[i] for result in results]) for i in range(3))
    lists = [result.lists[0] for result in results]
    return SlowOutput(torch.stack([result.output for result in results]), branches, lists)  # type: ignore[arg-type]


def slow_dense(layer: DenseAttention, x: Tensor) -> Tensor:
    """`DenseAttention.forward` of sequences from their beginning on."""
    outputs = []
    for sequence in x.double():
        time, dim, per_group = len(sequence), layer.dim, layer.n_heads // layer.groups
        heads = (sequence @ layer.qkv.weight.double().T).view(time, -1, dim)
        causal = torch.ones(time, time).tril()
        parts = []
        for head in range(layer.n_heads):
            group = layer.n_heads + head // per_group
            mixed, _ = attend(*(_turned(heads[:, i]) for i in (head, group)), heads[:, group + layer.groups], causal)
            parts.append(mixed)
        outputs.append(torch.cat(parts, dim=1) @ layer.out.weight.double().T)
    return torch.stack(outputs)


def _one_sequence(layer: SparseAttention, x: Tensor) -> SlowOutput:
    time, sizes, dim, groups = len(x), layer.sparsity, layer.dim, layer.groups
    heads = (x @ layer.qkv.weight.double().T).view(time, -1, dim)
    # In order: queries; keys of selection, window and compression, values of compression, selection and window.
    queries = [_turned(heads[:, head]) for head in range(layer.n_heads)]
    at = layer.n_heads
    parts = [[heads[:, at + kind * groups + group] for group in range(groups)] for kind in range(6)]
    branches: list[list[Tensor]] = [[], [], []]
    lists = []
    position, key = torch.arange(time).unsqueeze(1), torch.arange(time)
    for group in range(groups):
        raw_keys, raw_values = parts[2][group], parts[3][group]
        starts = [i * sizes.stride for i in range(time) if i * sizes.stride + sizes.block <= time]
        ends = torch.tensor([start + sizes.block - 1 for start in starts])
        compressed_keys, compressed_values = (
            [_compressed(phi, raw[start : start + sizes.block]) for start in starts]
            for phi, raw in ((layer.key_phi, raw_keys), (layer.value_phi, raw_values))
        )
        mine = queries[group * layer.n_heads // groups : (group + 1) * layer.n_heads // groups]
        attention = torch.zeros(time, len(starts), dtype=torch.float64)
        for query in mine:
            if not starts:
                branches[0].append(torch.zeros(time, dim, dtype=torch.float64))
                continue
            keys = torch.stack([turned(k, int(end)) for k, end in zip(compressed_keys, ends, strict=True)])
            output, seen = attend(query, keys, torch.stack(compressed_values), (ends <= position).double())
            branches[0].append(output)
            attention += seen.detach()
        chosen = [chosen_blocks(row, t, layer) for t, row in enumerate(attention.tolist())]
        lists.append(chosen)
        mask = torch.zeros(time, time, dtype=torch.float64)
        for t, blocks in enumerate(chosen):
            for block in blocks:
                mask[t, block * sizes.select_block : (block + 1) * sizes.select_block] = 1.0
        near = ((key > position - sizes.window) & (key <= position)).double()
        for query in mine:
            branches[1].append(attend(query, _turned(parts[0][group]), parts[4][group], mask.tril())[0])
            branches[2].append(attend(query, _turned(parts[1][group]), parts[5][group], near)[0])
    gates = _gates(layer, x)
    stacked = [torch.stack(branch) for branch in branches]  # head, time, dim
    mixed = sum(stacked[i] * gates[:, :, i].T.unsqueeze(-1) for i in range(3))
    assert isinstance(mixed, Tensor)
    output = mixed.transpose(0, 1).reshape(time, -1) @ layer.out.weight.double().T
    return SlowOutput(output, (stacked[0], stacked[1], stacked[2]), [lists])


def _turned(vectors: Tensor) -> Tensor:
    return torch.stack([turned(vector, position) for position, vector in enumerate(vectors)])


def _compressed(phi: torch.nn.Module, block: Tensor) -> Tensor:
    mean = block.mean(dim=0)
    if phi.positions is None:
        return mean
    flat = torch.cat([vector + place for vector, place in zip(block, phi.positions.double(), strict=True)])
    hidden = torch.nn.functional.gelu(phi.inner.weight.double() @ flat + phi.inner.bias.double())
    return mean + phi.outer.weight.double() @ hidden + phi.outer.bias.double()


def _gates(layer: SparseAttention, x: Tensor) -> Tensor:
    """(time, head, branch)"""
    inner, outer = layer.gates.inner, layer.gates.outer
    hidden = torch.nn.functional.gelu(x @ inner.weight.double().T + inner.bias.double())
    raw = (hidden @ outer.weight.double().T + outer.bias.double()).view(len(x), -1, 3)
    if layer.gates.kind == "sigmoid":
        return 1.0 / (1.0 + torch.exp(-raw))
    return torch.exp(raw) / torch.exp(raw).sum(dim=-1, keepdim=True)
