"""Which of the features does the model use, and how much does it gain by each?

Each group of input channels is taken away by dealing its values anew among the sampled windows, together, so that each
keeps its distribution and says nothing of its own target. The rise of the NLL on the same targets is what the model
gets from the group, given all others; groups that say the same twice both look small. Source: L. Breiman, Random
Forests, Machine Learning 45 (2001), section 10 (permutation importance). The mixture's offset is a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval
from trainables.spacing_mdn.config import SpacingConfig, num_channels
from trainables.spacing_mdn.features.options import BANK_LAGS, BANKS, LINE_CHANNELS
from trainables.spacing_mdn.model import guess_channel
from trainables.spacing_mdn.sample import Sample, draw

_WINDOWS = 4096
_SEED = 1729


@diagnostic("Q: gain by feature")
def channel_gain(subject: Any) -> Finding:
    """Return a finding with values in nats per spacing, by group of channels: the rise of the NLL without it."""
    config = subject.config
    if not config.has_features:
        raise NoEvidence("The model reads no features of the past, and there is nothing to take away.")
    sample = draw(subject.task, subject.sample.split, _WINDOWS)
    whole = sample.nll(sample.predict()).cpu().numpy()
    require_finite("The model's density is not finite on sampled windows.", whole)
    gains = {name: mean_interval(_without(sample, channels) - whole) for name, channels in groups(config).items()}
    first = max(gains, key=lambda name: gains[name].value)
    return answer(
        "pass",
        f"Of {len(gains)} groups of inputs the model gets most from {first.replace('_', ' ')}: without it the NLL is "
        f"{shown(gains[first])} nats higher, on {len(whole)} targets.",
        gains,
        {},
        (_plot(gains),),
    )


def groups(config: SpacingConfig) -> dict[str, slice]:
    """Input channels by what they are; together they are all."""
    offset = guess_channel(config)
    assert offset is not None
    found = {"spacings": slice(0, offset), "offset": slice(offset, offset + 1)}
    at = offset + 1
    for name, width in _widths(config).items():
        found[name] = slice(at, at + width)
        at += width
    assert at == num_channels(config)
    return found


def _widths(config: SpacingConfig) -> Mapping[str, int]:
    widths = {"log_height": 1} if config.height_input else {}
    for order, window in BANKS[config.ar_bank]:
        widths[f"AR{order}_of_{window}"] = 2 + BANK_LAGS
    if config.prime_lines:
        widths["lines_at_the_zero"] = LINE_CHANNELS
    if config.prime_grid:
        widths |= {"slope_about_the_next": 5, "field_ahead": 12}
    return widths


def _without(sample: Sample, channels: slice) -> np.ndarray[Any, Any]:
    """NLL of each window with these channels from another one."""
    dealt = torch.randperm(len(sample.inputs), generator=torch.Generator().manual_seed(_SEED))
    inputs = sample.inputs.clone()
    inputs[..., channels] = sample.inputs[dealt.to(inputs.device)][..., channels]
    changed = Sample(sample.task, sample.split, sample.starts, inputs, sample.targets, sample.log_height)
    nll: np.ndarray[Any, Any] = sample.nll(changed.predict()).cpu().numpy()
    return nll


def _plot(gains: Mapping[str, Interval]) -> Plot:
    return Plot(
        "What the model gains by each group of inputs",
        "inputs",
        "rise of the NLL without them (nats per spacing)",
        "bar",
        (Series.of("without them", list(gains.values())),),
        x_ticks=tuple(name.replace("_", " ") for name in gains),
    )
