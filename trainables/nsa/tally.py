"""What attention did, as numbers: gates, coverage of the selection, and whether reads are what the sizes say."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.nsa.attention import GateKind, Seen
from trainables.nsa.branches import Reads
from trainables.nsa.selection import NONE
from trainables.nsa.sparsity import Sparsity

BRANCHES = ("cmp", "sel", "win")
_COLLAPSED_ENTROPY, _COLLAPSED_SHARE = 0.1, 0.95
_START = {"sigmoid": 0.5, "softmax": 1.0 / 3.0}


def mismatches(reads: Reads, sparsity: Sparsity) -> Tensor:
    """How many queries and groups, of sequences from their beginning on, read other numbers than the closed form's."""
    time = reads.counts.shape[-1]
    predicted = torch.tensor([sparsity.reads(t + 1) for t in range(time)], device=reads.counts.device).T
    return (reads.counts != predicted[:, None, None]).any(dim=0).sum()


class Tally:
    """Sums over batches of sequences that were evaluated from their beginning on.

    Args:
        sparsity: sizes of the attention.
        gate: of what kind the gates are.
    """

    def __init__(self, sparsity: Sparsity, gate: GateKind) -> None:
        self._sizes, self._start = sparsity, _START[gate]
        self._weight = 0
        self._wrong = torch.zeros((), dtype=torch.int64)
        self._sums: dict[str, Tensor] = {}
        self._ages: Tensor | None = None

    def add(self, seen: Sequence[Seen]) -> None:
        """Take in what each layer did with one batch."""
        parts = [{**self._of_gates(layer.gates.double()), **self._of_reads(layer.reads)} for layer in seen]
        number = len(seen[0].gates)
        for name in parts[0]:
            total = torch.stack([part[name] for part in parts]).mean(dim=0) * number
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        ages = torch.stack([self._free_ages(layer.reads.blocks) for layer in seen])
        self._ages = ages if self._ages is None else self._ages + ages
        self._weight += number
        wrong = torch.stack([mismatches(layer.reads, self._sizes) for layer in seen]).sum().cpu()
        self._wrong = self._wrong + wrong

    def metrics(self) -> dict[str, float]:
        """Means over layers, sequences, heads or groups, and positions."""
        means = {name: total / self._weight for name, total in self._sums.items()}
        shares = means.pop("shares")
        assert self._ages is not None
        report = {name: value.item() for name, value in means.items()}
        report |= {f"share_{name}": share for name, share in zip(BRANCHES, shares.tolist(), strict=True)}
        report["gate_max"] = shares.max().item()
        report["choice_entropy"] = _evenness(self._ages)
        report["eval_reads_mismatch"] = float(self._wrong)
        return report

    def _of_gates(self, gates: Tensor) -> dict[str, Tensor]:
        total = gates.sum(dim=-1)
        shares = gates / total.unsqueeze(-1).clamp_min(1e-12)
        entropy = torch.special.entr(shares).sum(dim=-1)
        collapsed = (entropy < _COLLAPSED_ENTROPY) & (shares.amax(dim=-1) > _COLLAPSED_SHARE)
        return {
            "gate_entropy": entropy.mean(),
            "gate_collapse": collapsed.double().mean(),
            "gate_sum": total.mean(),
            "gate_moved": (gates - self._start).abs().mean(),
            "shares": shares.flatten(0, 2).mean(dim=0),
        }

    def _of_reads(self, reads: Reads) -> dict[str, Tensor]:
        visible = torch.arange(1, reads.counts.shape[-1] + 1, device=reads.counts.device)
        selected = reads.counts[1].double()
        coverage = selected / visible
        return {
            "coverage": coverage.mean(),
            "coverage_end": coverage[..., -self._sizes.select_block :].mean(),
            "dense_rows": (selected == visible).double().mean(),
            "pct_at_max": (selected == self._sizes.selected_tokens).double().mean(),
            "reads_share": (reads.counts.sum(dim=0) / visible).mean(),
        }

    def _free_ages(self, blocks: Tensor) -> Tensor:
        """How often a freely chosen block was so many blocks older than the newest forced ones; by age."""
        time = blocks.shape[2]
        newest = (torch.arange(time, device=blocks.device) // self._sizes.select_block).unsqueeze(1)
        # Queries that see no more blocks than they may select had nothing to choose.
        had = newest + 1 > self._sizes.num_select
        ages = newest - self._sizes.num_local - blocks
        free = (blocks != NONE) & (blocks > 0) & (ages >= 0) & had
        number = max(1, self._sizes.num_blocks(time) - self._sizes.num_forced)
        return torch.bincount(ages[free], minlength=number)[:number].double()


def _evenness(ages: Tensor) -> float:
    """Entropy of the ages of what each layer chose, as a share of an even choice's, averaged; 1 without a choice."""
    total = ages.sum(dim=-1, keepdim=True)
    if ages.shape[-1] < 2 or not total.all():
        return 1.0
    entropy = torch.special.entr(ages / total).sum(dim=-1)
    return float(entropy.mean() / math.log(ages.shape[-1]))
