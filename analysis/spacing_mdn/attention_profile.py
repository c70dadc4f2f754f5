"""I: do slots look at different parts of the window?

Where each slot's attention lies over the window's positions, as a centre of mass in positions (0 is the oldest
spacing), averaged over heads and sampled windows; and how far the slots' centres are spread. Attention to other slots
is left out. The last block is judged, since what it gathers is what is read out; the mean of the last three blocks and
of all blocks are reported beside it. No attribution: a slot may look at a place and take nothing from it.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown, verdict
from analysis.stats.bootstrap import interval
from trainables.arrays import Array
from trainables.spacing_mdn.blocks import Block
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.slots import SlotControl
from trainables.spacing_mdn.task import SpacingTask

_MIN_SPREAD = 10.0  # positions; the standard deviation of the slots' centres has to be above
_MAX_COLUMNS = 128  # of the picture
_MAX_FLOATS = 1 << 26  # 256 MiB


@diagnostic("I: attention profile of slots")
def attention_profile(subject: Any) -> Finding:
    """Return a finding with values in positions, standard deviation over slots of the centres of mass: ``spread_last``
    of the last block, ``spread_last3`` of the mean attention of the last three (or as many as there are),
    ``spread_all`` of all blocks; ``centre_min`` and ``centre_max`` of the last block; ``share_on_data``, how much of
    the last block's attention goes to data and not to slots.
    """
    config = subject.config
    if config.layout != "postfix":
        raise NoEvidence(f"Layout {config.layout} has no slots that look at the data.")
    if config.n_slots < 2:
        raise NoEvidence("There is one slot: it has no other to look elsewhere than.")
    centres, profile, on_data = slot_attention(subject.sample)
    require_finite("Attention of the slots is not finite on sampled windows.", centres)
    spreads = [interval(_spread, centres[:, depth]) for depth in range(3)]
    mean = centres[:, 0].mean(axis=0)
    last = spreads[0]
    meaning = "they look at different places" if last.value > _MIN_SPREAD else "they all look at the same places"
    return answer(
        verdict(last, lambda value: value > _MIN_SPREAD),
        f"In the last block the centres of attention of {config.n_slots} slots lie between position "
        f"{mean.min():.0f} and {mean.max():.0f} of {config.context}, spread by {shown(last, 1)} positions: "
        f"{meaning}.",
        {
            "spread_last": last,
            "spread_last3": spreads[1],
            "spread_all": spreads[2],
            "centre_min": float(mean.min()),
            "centre_max": float(mean.max()),
            "share_on_data": on_data,
        },
        {"spread_last": _MIN_SPREAD},
        (_centres_plot(centres), _profile_plot(profile)),
    )


def slot_attention(sample: Sample) -> tuple[Array, Array, float]:
    """Where slots look; means over heads (and blocks) are taken before a centre is.

    Returns:
        centres (windows, 3, slots) in positions, for the last block, the last three, all; profile (slots, context) of
        the last block, each row sums to 1; the share of the last block's attention that goes to data.
    """
    config = sample.task.config
    positions = torch.arange(config.context, dtype=torch.float64, device=sample.task.device)
    # Normed inputs of all blocks, with queries and keys, are held at once.
    floats = 3 * config.depth * config.width * (config.context + config.n_slots)
    centres, profiles, shares = [], [], []
    for inputs in torch.split(sample.inputs, min(max(_MAX_FLOATS // floats, 1), 32)):
        normed = attention_inputs(sample.task, inputs, sample.setting)
        weights = [
            attention_weights(block, part, config.n_slots)[..., : config.context].mean(dim=1).double()
            for block, part in zip(_blocks(sample.task), normed, strict=True)
        ]
        means = torch.stack([torch.stack(weights[-depth:]).mean(dim=0) for depth in (1, 3, len(weights))], dim=1)
        on_data = means.sum(dim=-1)
        centres.append((means @ positions / on_data).cpu())
        profiles.append((means[:, 0] / on_data[:, 0].unsqueeze(-1)).sum(dim=0).cpu())
        shares.append(on_data[:, 0].mean(dim=-1).cpu())
    profile = torch.stack(profiles).sum(dim=0) / len(sample.inputs)
    return torch.cat(centres).numpy(), profile.numpy(), float(torch.cat(shares).mean())


def attention_inputs(
    task: SpacingTask, inputs: Float[Tensor, "batch context channels"], control: SlotControl
) -> list[Float[Tensor, "batch tokens width"]]:
    """Per block, what queries, keys and values are made of: the data, then the slots of the group that sees all."""
    kept: list[Tensor] = []
    hooks = [
        block.attention_norm.register_forward_hook(lambda module, args, out: kept.append(out))
        for block in _blocks(task)
    ]
    try:
        task.predict(inputs, control)
    finally:
        for hook in hooks:
            hook.remove()
    length, number = task.config.context, task.config.n_slots
    return [torch.cat((normed[:, :length], normed[:, -number:]), dim=1).float() for normed in kept]


@torch.inference_mode()
def attention_weights(
    block: Block, normed: Float[Tensor, "batch tokens width"], number: int
) -> Float[Tensor, "batch heads slots tokens"]:
    """Softmax weights of the last ``number`` tokens over all tokens; ``normed`` as `attention_inputs` has it."""
    width = normed.shape[-1]
    query = block.heads(F.linear(normed[:, -number:], block.qkv.weight[:width]))
    key = block.heads(F.linear(normed, block.qkv.weight[width : 2 * width]))
    weights: Tensor = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
    return weights


def _blocks(task: SpacingTask) -> list[Block]:
    return [cast(Block, block) for block in task.model.blocks]


def _spread(centres: Array) -> float:
    return float(centres.mean(axis=0).std())


def _centres_plot(centres: Array) -> Plot:
    slots = tuple(range(centres.shape[-1]))
    series = tuple(
        Series(label, slots, tuple(centres[:, depth].mean(axis=0).tolist()))
        for depth, label in enumerate(("last block", "mean of last 3", "all blocks"))
    )
    return Plot("Centre of attention of each slot", "slot", "position in the window", "points", series)


def _profile_plot(profile: Array) -> Plot:
    """Attention by slot and position; a long window in at most `_MAX_COLUMNS` runs of positions."""
    run = -(-profile.shape[1] // _MAX_COLUMNS)
    columns = np.add.reduceat(profile, np.arange(0, profile.shape[1], run), axis=1)
    label = "position" if run == 1 else f"position / {run}"
    return Plot("Attention of slots, last block", label, "slot", "heat", grid=columns.tolist())
