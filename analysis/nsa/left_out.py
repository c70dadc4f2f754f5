"""What does this model lose by what its selection leaves out, position by position?

The answer is the loss on sampled sequences with the model's own selection, and with one that takes every block, at the
same weights. Up to the tokens that a selection may hold both are the same by construction; what lies beyond is
judged. What it is not: a comparison with a model that was trained dense, which `matched_tokens` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown, verdict
from analysis.nsa.looked import NOT_FINITE, layers_of
from analysis.stats.bootstrap import mean_interval
from trainables.arrays import Array
from trainables.nsa.attention import SparseAttention

_MOST_LOST = 0.02
"""Nats per token beyond the selection's reach that selecting may cost."""
_BUCKETS = 16
_FEWEST = 4


@diagnostic("loss by position, with the selection and with every block")
def left_out(subject: Any) -> Finding:
    """Return a finding with values in nats per token: ``lost``, the loss with the model's selection less that with all
    blocks, over positions beyond the selection's reach; ``loss_beyond`` and ``loss_within`` that reach."""
    layers = layers_of(subject)
    reach = subject.config.sparsity.selected_tokens
    if reach >= subject.config.context:
        raise NoEvidence(f"The selection reaches over all {subject.config.context:,} tokens: nothing is left out.")
    sequences = subject.sample.sequences
    if len(sequences) < _FEWEST:
        raise NoEvidence(f"The split has fewer than {_FEWEST} sequences of this length.")
    own = subject.task.score(sequences).cpu().numpy()
    with all_blocks(layers, subject.config.context):
        whole = subject.task.score(sequences).cpu().numpy()
    require_finite(NOT_FINITE, own, whole)
    return judge(own, whole, reach)


@contextmanager
def all_blocks(layers: list[SparseAttention], context: int) -> Iterator[None]:
    """Within it every query selects every visible block."""
    sizes = layers[0].sparsity
    try:
        for layer in layers:
            layer.sparsity = replace(sizes, num_select=max(sizes.num_select, sizes.num_blocks(context)))
        yield
    finally:
        for layer in layers:
            layer.sparsity = sizes


def judge(own: Array, whole: Array, reach: int) -> Finding:
    """The finding on (sequences, positions) losses with the model's own selection and with every block."""
    lost = mean_interval((own - whole)[:, reach:].mean(axis=1), block=1)
    beyond, within = float(own[:, reach:].mean()), float(own[:, :reach].mean())
    found = verdict(lost, lambda value: value <= _MOST_LOST)
    word = {"pass": "little or nothing", "warn": "perhaps too much", "fail": "too much", "no_evidence": "unknown"}[
        found
    ]
    summary = (
        f"Beyond the {reach:,} tokens that the selection may hold, selecting costs {shown(lost)} nats per token "
        f"against reading every block with the same weights: {word}. The loss is {within:.3f} within that reach and "
        f"{beyond:.3f} beyond it."
    )
    values: dict[str, Value] = {"lost": lost, "loss_beyond": beyond, "loss_within": within}
    return answer(found, summary, values, {"lost": _MOST_LOST}, (_plot(own, whole),))


def _plot(own: Array, whole: Array) -> Plot:
    edges = np.linspace(0, own.shape[1], min(_BUCKETS, own.shape[1]) + 1).astype(int)
    x = tuple(float(edge) for edge in (edges[:-1] + edges[1:]) / 2)

    def means(losses: Array) -> tuple[float, ...]:
        return tuple(float(losses[:, a:b].mean()) for a, b in pairwise(edges))

    series = (Series("own selection", x, means(own)), Series("every block", x, means(whole)))
    return Plot("Loss by position", "position in the sequence", "nats per token", series=series)
