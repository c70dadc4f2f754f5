"""B: are the slots different from one another?

Cosines between slots, of their vectors (content + ID, as they enter the model) and, under ``postfix``, of their states
where they are read out. Reported; only slots that are all but the same give a warning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, NoEvidence, Plot, Value, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown
from analysis.spacing_mdn.slots import pairs
from analysis.stats.bootstrap import mean_interval
from trainables.arrays import Array
from trainables.spacing_mdn.settings import predict_settings

_SAME = 0.95  # mean absolute cosine from which the slots count as one


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
        vectors = _cosines(slots(sample.setting))
        contents, ids = _cosines(slots.content), _cosines(slots.ids)
    states = None
    if config.layout == "postfix":
        read_out = predict_settings(sample, [sample.setting])[0].slots
        assert read_out is not None  # postfix
        states = _cosines(read_out[:, -1])
    require_finite("Slots are not finite numbers.", *(vectors, contents, ids, *([] if states is None else [states])))
    apart = pairs(vectors)
    values: dict[str, Value] = {
        "vectors_mean": float(apart.mean()),
        "vectors_max": float(apart.max()),
        "contents_mean": float(pairs(contents).mean()),
        "ids_mean": float(pairs(ids).mean()),
    }
    plots = [Plot.table("Cosine between slots' vectors", "slot", "slot", vectors.tolist())]
    same, read = bool(apart.mean() >= _SAME), ""
    if states is not None:
        mean = values["states_mean"] = mean_interval(pairs(states).mean(axis=1))
        same = same or mean.value >= _SAME
        read = f" and {shown(mean)} between their states where they are read out"
        title = "Cosine between slots' states, mean over windows"
        plots.append(Plot.table(title, "slot", "slot", states.mean(axis=0).tolist()))
    meaning = "they are all but one and the same slot" if same else "they are not copies of one another"
    return answer(
        "warn" if same else "pass",
        f"The mean absolute cosine is {apart.mean():.3f} between the vectors of two slots{read}: {meaning}.",
        values,
        {name: _SAME for name in ("vectors_mean", "states_mean") if name in values},
        tuple(plots),
    )


def _cosines(vectors: Tensor) -> Array:
    """(..., slots, slots) float64 cosines of (..., slots, width)."""
    directions = vectors.detach().double()
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    table: Array = (directions @ directions.transpose(-1, -2)).cpu().numpy()
    return table
