"""F: how long are the slots' vectors?

Norms of contents, IDs and their sum, as learned. Every block normalises what it reads, so length matters only beside
what blocks add. Reported; a slot next to nothing gives a warning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import require_finite
from trainables.arrays import Array

_NEXT_TO_NOTHING = 0.01  # of the longest vector: a shorter one counts as absent


@diagnostic("F: slot norms")
def slot_norms(subject: Any) -> Finding:
    """Return a finding with values, Euclidean norms without unit: ``slot_<i>`` of content + ID as they enter the model;
    ``mean``; ``contents_mean`` and ``ids_mean`` of the parts; ``shortest_to_longest``; ``capped_share`` of the slots
    that are as long as ``norm_cap`` lets them, where a cap is set. Parameters, the same for every window: they have no
    interval.
    """
    config, slots = subject.config, subject.task.model.slots
    if slots is None:
        raise NoEvidence("The model has no slots to measure.")
    with torch.no_grad():
        norms, contents, ids = (_norms(part) for part in (slots(subject.sample.setting), slots.content, slots.ids))
    require_finite("Slots are not finite numbers.", norms, contents, ids)
    longest = float(norms.max())
    ratio = float(norms.min()) / longest if longest > 0.0 else 0.0
    values: dict[str, Value] = {
        "mean": float(norms.mean()),
        "shortest_to_longest": ratio,
        "contents_mean": float(contents.mean()),
        "ids_mean": float(ids.mean()),
        **{f"slot_{slot}": float(norm) for slot, norm in enumerate(norms)},
    }
    if config.norm_cap > 0.0:
        values["capped_share"] = float((norms >= config.norm_cap * (1.0 - 1e-5)).mean())
    absent = ratio < _NEXT_TO_NOTHING
    meaning = "at least one is next to nothing" if absent else "none is next to nothing"
    return answer(
        "warn" if absent else "pass",
        f"The slots' vectors are {norms.min():.3g} to {longest:.3g} long (contents {contents.mean():.3g} and IDs "
        f"{ids.mean():.3g} in the mean): {meaning}.",
        values,
        {"shortest_to_longest": _NEXT_TO_NOTHING},
        (_plot(norms, contents, ids, config.norm_cap),),
    )


def _norms(vectors: Tensor) -> Array:
    norms: Array = vectors.double().norm(dim=-1).cpu().numpy()
    return norms


def _plot(norms: Array, contents: Array, ids: Array, cap: float) -> Plot:
    place = tuple(range(len(norms)))
    parts = (("content + ID", norms), ("content", contents), ("ID", ids))
    series = [Series(label, place, tuple(part.tolist())) for label, part in parts]
    lines = {"norm_cap": cap} if cap > 0.0 else {}
    return Plot.bars("Norms of the slots' vectors", "slot", "Euclidean norm", *series, lines=lines)
