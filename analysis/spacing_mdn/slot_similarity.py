"""B: are the slots different from one another?

What it is: cosines between slots, of their vectors (content + ID, as they enter the model) and, under ``postfix``, of
their states where they are read out. What it is not: a test of what they are good for (`slot_ablation`,
`slot_effect`). Reported; only slots that are all but the same give a warning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.diagnose.api import Finding, NoEvidence, Plot, Value, answer, diagnostic
from analysis.diagnose.verdicts import shown
from analysis.stats.bootstrap import mean_interval
from trainables.spacing_mdn.settings import predict_settings

SAME = 0.95
"""Mean absolute cosine from which the slots count as one."""

Array = NDArray[np.float64]


@diagnostic("B: slot similarity")
def slot_similarity(subject: Any) -> Finding:
    """Return a finding with values, absolute cosines: ``vectors_mean`` and ``vectors_max`` over pairs;
    ``contents_mean`` and ``ids_mean`` of the two parts by themselves; ``states_mean`` over pairs and windows (postfix;
    of the group that sees all).

    Vectors are parameters, the same for every window, and have no interval. A zero vector has cosine 0 with all.
    """
    config, sample, slots = subject.config, subject.sample, subject.task.model.slots
    if slots is None:
        raise NoEvidence("The model has no slots to compare.")
    if config.n_slots < 2:
        raise NoEvidence("There is one slot, and nothing to compare it with.")
    with torch.no_grad():
        vectors = cosines(slots(sample.setting))
        contents, ids = cosines(slots.content), cosines(slots.ids)
    states = None
    if config.layout == "postfix":
        read_out = predict_settings(sample, [sample.setting])[0].slots
        assert read_out is not None  # postfix
        states = cosines(read_out[:, -1])
    if not all(np.isfinite(part).all() for part in (vectors, contents, ids, states) if part is not None):
        raise NoEvidence("Slots are not finite numbers.")
    pairs = _pairs(vectors)
    values: dict[str, Value] = {
        "vectors_mean": float(pairs.mean()),
        "vectors_max": float(pairs.max()),
        "contents_mean": float(_pairs(contents).mean()),
        "ids_mean": float(_pairs(ids).mean()),
    }
    plots = [_plot("Cosine between slots' vectors", vectors)]
    same, read = bool(pairs.mean() >= SAME), ""
    if states is not None:
        mean = values["states_mean"] = mean_interval(_pairs(states).mean(axis=1))
        same = same or mean.value >= SAME
        read = f" and {shown(mean)} between their states where they are read out"
        plots.append(_plot("Cosine between slots' states, mean over windows", states.mean(axis=0)))
    meaning = "they are all but one and the same slot" if same else "they are not copies of one another"
    return answer(
        "warn" if same else "pass",
        f"The mean absolute cosine is {pairs.mean():.3f} between the vectors of two slots{read}: {meaning}.",
        values,
        {name: SAME for name in ("vectors_mean", "states_mean") if name in values},
        tuple(plots),
    )


def cosines(vectors: Tensor) -> Array:
    """(..., slots, slots) float64 cosines of (..., slots, width)."""
    directions = vectors.detach().double()
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    table: Array = (directions @ directions.transpose(-1, -2)).cpu().numpy()
    return table


def _pairs(table: Array) -> Array:
    """(..., pairs) absolute values above the diagonal."""
    first, second = np.triu_indices(table.shape[-1], k=1)
    return np.abs(table[..., first, second])


def _plot(title: str, table: Array) -> Plot:
    ticks = tuple(str(slot) for slot in range(len(table)))
    return Plot(title, "slot", "slot", "heat", grid=table.tolist(), x_ticks=ticks)
