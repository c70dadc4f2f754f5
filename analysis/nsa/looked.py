"""What diagnostics of sparse attention share: one pass over sampled sequences, and reasons to say nothing."""

from __future__ import annotations

from typing import Any

import torch

from analysis.diagnose.api import NoEvidence
from trainables.nsa.attention import SparseAttention
from trainables.nsa.model import NSAModel
from trainables.nsa.tally import Tally

DENSE = "The model's attention is dense: there is nothing sparse to look at."
NOT_FINITE = "The model's logits are not finite on sampled sequences."
_AT_MOST = 16
"""Sequences that are looked at in one pass: each holds thousands of queries."""


def layers_of(subject: Any) -> list[SparseAttention]:
    """The attention of each layer; raises `NoEvidence` for a dense model."""
    found = [block.attention for block in subject.task.model.layers()]
    sparse = [layer for layer in found if isinstance(layer, SparseAttention)]
    if not sparse:
        raise NoEvidence(DENSE)
    return sparse


def tallies(subject: Any) -> list[Tally]:
    """What each layer did with sampled sequences; raises `NoEvidence` for a dense model, or one of NaN."""
    layers_of(subject)
    config, model = subject.config, subject.task.model
    assert isinstance(model, NSAModel)
    rows = subject.sample.at_most(_AT_MOST).sequences[:, :-1].to(subject.task.device)
    with torch.inference_mode():
        output = model(rows, counted=True)
    if not output.logits.isfinite().all():
        raise NoEvidence(NOT_FINITE)
    by_layer = []
    for seen in output.seen:
        by_layer.append(Tally(config.sparsity, config.gate))
        by_layer[-1].add([seen])
    return by_layer
