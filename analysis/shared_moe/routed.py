"""What routers do with sampled sequences, kept sequence by sequence: the piece that diagnostics of experts share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.diagnose.api import NoEvidence, Verdict
from analysis.diagnose.verdicts import require_finite
from trainables.arrays import Array
from trainables.language.sample import Sample
from trainables.shared_moe.routing import Choice
from trainables.shared_moe.task import SharedMoETask

Counts = NDArray[np.int64]

DENSE = "The model is dense: it has no experts that tokens could be sent to."
ALL_CHOSEN = "Every token goes to every expert (top_k = num_experts): the router chooses nothing."
NOT_FINITE = "The model's loss is not finite on sampled sequences."

BLOCK = 2
"""Adjacent sampled sequences that the bootstrap draws together, since they may be of one document."""
FEWEST = 32
"""Sequences below which there is nothing to judge from: a percentile bootstrap by pairs of 8 covers .83 instead of .95,
of 32 .92."""
TOO_FEW = f"The split has fewer than {FEWEST} sequences of this length: too few to tell a difference from chance."


@dataclass(frozen=True)
class _Routed:
    """What one pass over sampled sequences showed.

    Attributes:
        counts: (sequences, depth, experts) assignments, as the routers chose.
        nll: (sequences,) mean negative log likelihood in nats per token.
        reached: share of the assignments that reached an expert.
    """

    counts: Counts
    nll: Array
    reached: float


def route(sample: Sample[SharedMoETask]) -> _Routed:
    """One pass over the sequences of a model with experts; a model that says nothing finite has an NLL that is not."""
    task = sample.task
    config, routers = task.config, task.model.routers()
    num, time = len(sample.sequences), sample.sequences.shape[1] - 1
    chosen: list[Tensor] = []

    def keep(router: nn.Module, inputs: Any, choice: Choice) -> None:
        chosen.append(choice.experts.detach())

    hooks = [router.register_forward_hook(keep) for router in routers]
    try:
        nll, routing = task.score(sample.sequences)
    finally:
        for hook in hooks:
            hook.remove()
    assert routing is not None
    # The routers were asked depth by depth for one batch of sequences, then for the next.
    batches = [torch.stack(chosen[i : i + config.depth]) for i in range(0, len(chosen), config.depth)]
    experts = torch.cat([batch.view(config.depth, -1, time * config.top_k) for batch in batches], dim=1)
    counts = torch.zeros(config.depth, num, config.num_experts, dtype=torch.int64, device=experts.device)
    counts.scatter_add_(2, experts, torch.ones_like(experts))
    reached = routing.counts.sum().item() / (config.depth * config.top_k * num * time)
    return _Routed(counts.transpose(0, 1).cpu().numpy(), nll.mean(dim=1).cpu().numpy(), reached)


def enough(sample: Sample[SharedMoETask]) -> _Routed:
    """One pass over the sequences; raises `NoEvidence` where they are too few, or the loss is not finite."""
    if len(sample.starts) < FEWEST:
        raise NoEvidence(TOO_FEW)
    seen = route(sample)
    require_finite(NOT_FINITE, seen.nll)
    return seen


def load(counts: Counts) -> Array:
    """(depth, experts) each expert's share of a depth's assignments, over all of (sequences, depth, experts)."""
    total = counts.sum(axis=0)
    shares: Array = total / total.sum(axis=1, keepdims=True)
    return shares


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """``fail`` if one is, else ``warn`` if one is, else ``pass``."""
    given = set(verdicts)
    return "fail" if "fail" in given else "warn" if "warn" in given else "pass"
