"""Who goes to which expert, what the router is charged for it, and how evenly the load is spread.

With E experts, k of them chosen for each token: ``load`` is an expert's share of all assignments, ``importance`` its
mean probability under the softmax over all experts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainables.shared_moe.config import Gate, SharedMoEConfig
from trainables.training.schedules import ramp

_DEAD = 0.1
"""An expert with less than this part of a fair share counts as dead."""


@dataclass(frozen=True)
class Choice:
    """What the router says of a batch of tokens: experts, their weights, and what its losses are made of."""

    experts: Int[Tensor, "tokens k"]
    weights: Float[Tensor, "tokens k"]
    importance: Float[Tensor, " experts"]
    squared_logsumexp: Float[Tensor, ""]


@dataclass(frozen=True)
class Routing:
    """What happened at each application of a block.

    Attributes:
        importance: mean probabilities; carries the gradient of the auxiliary loss.
        squared_logsumexp: mean over tokens; carries the gradient of the z-loss.
    """

    counts: Int[Tensor, "depth experts"]
    importance: Float[Tensor, "depth experts"]
    squared_logsumexp: Float[Tensor, " depth"]

    def aux_loss(self) -> Float[Tensor, ""]:
        """E sum(importance load), averaged over depth: 1 when uniform, E / k when all goes to k experts.

        Switch Transformer (arXiv 2101.03961), equation 4, carried over to k choices a token.
        """
        load = self.counts / self.counts.sum(dim=1, keepdim=True)
        return self.counts.shape[1] * (self.importance * load).sum(dim=1).mean()

    def z_loss(self) -> Float[Tensor, ""]:
        """Mean squared logsumexp of the router's logits (ST-MoE, arXiv 2202.08906, equation 5)."""
        return self.squared_logsumexp.mean()


class Router(nn.Module):
    """A linear layer over the experts, always in float32: in bfloat16 near ties would be decided by rounding.

    ``shift`` is added to the logits for the choice alone: not to the probabilities, and without a gradient.
    """

    shift: Tensor

    def __init__(self, width: int, num_experts: int, top_k: int, gate: Gate) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_experts)
        self.register_buffer("shift", torch.zeros(num_experts))
        self.top_k = top_k
        self.gate = gate

    def forward(self, x: Float[Tensor, "tokens width"], dropped: Bool[Tensor, " experts"] | None = None) -> Choice:
        """Choose experts for normalised hidden states; tokens of a ``dropped`` expert go to the next best."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.linear.weight.float(), self.linear.bias.float())
            if dropped is not None:
                logits = logits.masked_fill(dropped, -math.inf)
            probabilities = logits.softmax(dim=-1)
            experts = (logits.detach() + self.shift).topk(self.top_k, dim=-1).indices
            picked = logits.gather(1, experts)
            if self.gate == "topk_softmax":
                weights = picked.softmax(dim=-1)
            elif self.gate == "prob":
                weights = probabilities.gather(1, experts)
            else:
                weights = picked.sigmoid()
            return Choice(experts, weights, probabilities.mean(dim=0), logits.logsumexp(dim=-1).square().mean())

    @torch.no_grad()
    def rebalance(self, counts: Int[Tensor, " experts"], rate: float) -> None:
        """Make idle experts likelier to be chosen, busy ones less (arXiv 2408.15664, algorithm 1)."""
        load = counts.float()
        self.shift.add_(rate * (load.mean() - load).sign())


def aux_coefficient(config: SharedMoEConfig, step: int) -> float:
    """Weight of the auxiliary loss at an optimiser step: held at its start, then straight to its end.

    A function of the step and the pinned ``schedule_steps`` alone, so that resuming, promotion and accumulation leave
    it as it is.
    """
    if config.balance != "aux":
        return 0.0
    start, end, length = config.aux_loss_coef_start, config.aux_loss_coef_end, config.schedule_steps
    return ramp(
        step, ((round(config.aux_warmup_frac * length), start), (round(config.aux_decay_end_frac * length), end))
    )


def balance_metrics(counts: Int[Tensor, "depth experts"], *, shared: bool) -> dict[str, float]:
    """How evenly assignments are spread; see the family's metrics for what each name means.

    Where depths do not use the same experts (``shared``), each has its own, and what is said of experts is the mean
    over depths (``dead_experts``: their sum).
    """
    load = counts.double() / counts.sum(dim=1, keepdim=True)  # float32 has no odd counts above 2^24
    num = load.shape[1]
    banks = load.mean(dim=0, keepdim=True) if shared else load
    entropy = _entropy(banks) / math.log(num)
    dead = (banks < _DEAD / num).sum(dim=1).double()
    mean = load.mean(dim=0)
    values = {
        "balance_entropy": entropy.mean(),
        "balance_entropy_min": (_entropy(load) / math.log(num)).min(),
        "load_max": banks.amax(dim=1).mean(),
        "load_min": banks.amin(dim=1).mean(),
        "load_top4": banks.topk(min(4, num), dim=1).values.sum(dim=1).mean(),
        "max_vio": num * banks.amax(dim=1).mean() - 1.0,
        "dead_experts": dead.sum(),
        "dead_share": dead.mean() / num,
        "depth_specialisation": jensen_shannon(load, mean).mean(),
    }
    numbers = torch.stack([value.double() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def jensen_shannon(p: Float[Tensor, "rows experts"], q: Float[Tensor, " experts"]) -> Float[Tensor, " rows"]:
    """Jensen-Shannon distance of each row to ``q``, in base 2: 0 for equal ones, 1 for disjoint ones."""
    middle = (p + q) / 2
    divergence = _entropy(middle) - (_entropy(p) + _entropy(q.expand_as(p))) / 2
    return (divergence / math.log(2.0)).clamp(min=0.0).sqrt()


def _entropy(p: Tensor) -> Tensor:
    """In nats, along the last dimension; 0 log 0 is 0."""
    return -torch.xlogy(p, p).sum(dim=-1)
