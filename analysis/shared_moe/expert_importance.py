"""What does the model lose when one expert is taken away, and does one carry everything?

What it is: the change of the loss on sampled sequences when no router, at any depth, may choose an expert, so that
tokens go to the next best; for each expert, paired sequence by sequence. The scale is what all experts are worth
together: the change of the loss when no expert writes anything. One whose absence alone costs more than half of that
carries the model. Experts whose cost cannot be told from zero are counted: a model of which most could go pays for
parameters that it does not use.
What it is not: a measure of work. Two that do the same cost nothing each, and everything both; an expert may be busy
and easily replaced. Loads are drawn beside the costs.

The costliest expert's share of the sum of all costs (``top_of_costs``) is reported and not judged: where experts stand
in for each other well, that sum is small, and one expert for a few hard tokens makes up most of it in a healthy model.
With gate ``prob`` the weights are shares of all experts' probability, so that to take away one that is never chosen
still makes the others a little louder. Costs below `_LEAST` count as none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown, verdict
from analysis.shared_moe.routed import BLOCK, DENSE, FEWEST, NOT_FINITE, TOO_FEW, worst
from analysis.stats.bootstrap import interval, mean_interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.language.sample import Sample
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import SharedMoE
from trainables.shared_moe.task import SharedMoETask

_MAX_TOP_SHARE = _MAX_IDLE_SHARE = 0.5
_MIN_WORTH = 0.01  # nats per token that all experts have to be worth together, before a share of it means anything
_LEAST = 1e-4  # nats per token; a cost whose interval reaches below is none
_JUDGED_FROM = 4  # experts; of fewer, one may well do half of the work
_MAX_TOKENS = 1 << 17  # of all passes together


@diagnostic("importance of single experts")
def expert_importance(subject: Any) -> Finding:
    """Return a finding with values, costs in nats per token: ``top_share``, the largest cost of one expert over that of
    all, and ``top_of_costs``, over the sum of all costs above zero (both left out if there is nothing to share);
    ``idle_share`` of the experts whose cost cannot be told from zero; ``none_left``, the cost of all; ``nll`` with all
    of them; ``sequences``, on how many this rests. The cost of each is in the plots: expert 3 of one seed has nothing
    to do with expert 3 of another, and values are put side by side over seeds.

    The largest of several costs leans upwards, the more so the fewer the sequences.
    """
    config = subject.config
    if config.ffn == "dense":
        raise NoEvidence(DENSE)
    if config.blocks == "indexed":
        raise NoEvidence("Each depth has experts of its own: none could be taken away everywhere.")
    sample = affordable(subject.sample, config.num_experts + 2)
    if len(sample.starts) < FEWEST:
        raise NoEvidence(TOO_FEW)
    own, costs, none_left, load = drop_each(sample)
    require_finite(NOT_FINITE, own)
    require_finite("The model's loss is not finite on sampled sequences without some expert.", costs, none_left)
    return judge(own, costs, none_left, load)


def judge(own: Array, costs: Array, none_left: Array, load: Array) -> Finding:
    """The finding on losses, and their changes, as `drop_each` returns them."""
    num = len(costs)
    each = [mean_interval(cost, BLOCK) for cost in costs]
    idle = sum(estimate.low <= _LEAST for estimate in each)
    worth = mean_interval(none_left, BLOCK)
    values: dict[str, Value] = {"idle_share": idle / num, "none_left": worth}
    threshold = {"idle_share": _MAX_IDLE_SHARE, "none_left": _MIN_WORTH}
    verdicts: dict[str, Verdict] = {
        "idle": "warn" if idle / num > _MAX_IDLE_SHARE else "pass",
        "worth": "pass" if verdict(worth, lambda value: value >= _MIN_WORTH) == "pass" else "warn",
    }
    if verdicts["worth"] == "pass" and idle < num:
        pairs = np.column_stack([none_left, costs.T])
        top = values["top_share"] = interval(_top_share, pairs, BLOCK)
        values["top_of_costs"] = interval(_top_of_costs, costs.T, BLOCK)
        if num >= _JUDGED_FROM:
            threshold["top_share"] = _MAX_TOP_SHARE
            verdicts["top"] = verdict(top, lambda value: value <= _MAX_TOP_SHARE)
    costliest = max(range(num), key=lambda expert: each[expert].value)
    return answer(
        worst(verdicts.values()),
        f"Without any of the {num} experts the loss changes by {shown(worth)} nats per token; without number "
        f"{costliest}, which is missed most, by {shown(each[costliest])}. {idle} can be taken away, one at a time, "
        f"without a loss that shows: {_meaning(verdicts)}.",
        {**values, "nll": mean_interval(own, BLOCK), "sequences": float(len(own))},
        threshold,
        _plots(each, load),
    )


def affordable(sample: Sample[SharedMoETask], passes: int) -> Sample[SharedMoETask]:
    """As many of the sequences, evenly spread, as that many passes may take; at least `FEWEST`."""
    return sample.at_most(max(FEWEST, _MAX_TOKENS // (passes * sample.task.config.context)))


def drop_each(sample: Sample[SharedMoETask]) -> tuple[Array, Array, Array, Array]:
    """Score one pass with all experts, one without each, one without any.

    Returns:
        (sequences,) loss in nats per token; (experts, sequences) its change without each expert; (sequences,) its
        change with none; (experts,) load with all of them, over all depths.
    """
    task, num = sample.task, sample.task.config.num_experts
    nll, routing = task.score(sample.sequences)
    assert routing is not None
    own = nll.mean(dim=1)
    absent = torch.eye(num, dtype=torch.bool, device=task.device)
    without = torch.stack([task.score(sample.sequences, one)[0].mean(dim=1) for one in absent])
    with _silent(task.model):
        nothing = task.score(sample.sequences)[0].mean(dim=1)
    counts = routing.counts.sum(dim=0).double()
    parts: list[Array] = [part.cpu().numpy() for part in (own, without - own, nothing - own, counts / counts.sum())]
    return parts[0], parts[1], parts[2], parts[3]


@contextmanager
def _silent(model: SharedMoE) -> Iterator[None]:
    """Let no expert write anything."""

    def zero(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(output[0]), output[1]

    hooks = [module.register_forward_hook(zero) for module in model.modules() if isinstance(module, Experts)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _top_share(pairs: Array) -> float:
    """Of (sequences, 1 + experts) costs, of all experts and of each."""
    means = pairs.mean(axis=0)
    return float(means[1:].max() / means[0]) if means[0] > 0.0 else math.nan


def _top_of_costs(costs: Array) -> float:
    """Of (sequences, experts) costs."""
    means = np.maximum(costs.mean(axis=0), 0.0)
    total = float(means.sum())
    return float(means.max()) / total if total > 0.0 else 0.0


def _meaning(verdicts: Mapping[str, Verdict]) -> str:
    top = {"fail": ["one expert carries the model"], "warn": ["one expert may carry the model"]}
    words = top.get(verdicts.get("top", "pass"), [])
    if verdicts["worth"] == "warn":
        words = [*words, "the experts together are worth next to nothing"]
    elif verdicts["idle"] == "warn":
        words = [*words, "the model pays for experts that it does not use"]
    return ", and ".join(words) or "the work is shared"


def _plots(each: Sequence[Interval], load: Array) -> tuple[Plot, ...]:
    cost = "change of the loss (nats per token)"
    against = (Series.of("expert", each, load.tolist()),)
    title = "Cost of an expert's absence against its load"
    return (
        Plot.bars("Loss without one expert", "expert", cost, Series.of("without the expert", each)),
        Plot(title, "share of the assignments", cost, "points", against),
    )
