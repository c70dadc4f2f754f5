"""C: does training pull the slots in different directions?

Correlation over the width between two slots' gradients of the same window's NLL, absolute, in the mean over pairs and
windows. The gradient is that with respect to a slot's vector as it enters the first block, which is the gradient of its
content and of its ID at once; every ID is at its own slot, and to number the slots otherwise permutes pairs and leaves
their mean alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.diagnose.api import Finding, NoEvidence, Plot, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown, verdict
from analysis.spacing_mdn.slots import pairs
from analysis.stats.bootstrap import mean_interval
from trainables.arrays import Array
from trainables.spacing_mdn import settings

_MAX_CORRELATION = 0.6
_SILENT = 1e-6  # of the window's longest gradient: below it float32 leaves no direction


@diagnostic("C: gradient correlation between slots")
def slot_gradients(subject: Any) -> Finding:
    """Return a finding with values: ``mean_abs_correlation`` over pairs and windows; ``silent_share`` of the slots'
    gradients that are too short to have a direction (pairs with one are left out).
    """
    config = subject.config
    if config.layout != "postfix":
        raise NoEvidence(f"Layout {config.layout} has no slots that are read out, whose gradients could be compared.")
    if config.n_slots < 2:
        raise NoEvidence("There is one slot, and nothing to correlate its gradient with.")
    gradients = settings.slot_gradients(subject.sample).double().cpu().numpy()
    require_finite("Gradients of the NLL are not finite on sampled windows.", gradients)
    table, silent = correlations(gradients)
    sizes = pairs(table)
    heard = np.isfinite(sizes).any(axis=1)
    if not heard.any():
        raise NoEvidence("In no window does the NLL pull at two slots: it hangs on one slot or none.")
    mean = mean_interval(np.nanmean(sizes[heard], axis=1))
    good = mean.value <= _MAX_CORRELATION
    meaning = "training pulls them different ways" if good else "training pulls them much the same way"
    return answer(
        verdict(mean, lambda value: value <= _MAX_CORRELATION),
        f"The gradients of two slots correlate by {shown(mean)} in absolute value: {meaning}.",
        {"mean_abs_correlation": mean, "silent_share": float(silent.mean())},
        {"mean_abs_correlation": _MAX_CORRELATION},
        (_plot(table[heard]),),
    )


def correlations(gradients: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Pearson correlations over the width of (windows, slots, width), and which slots have none.

    Returns:
        (windows, slots, slots), NaN where one of the two has no direction, and (windows, slots), True for those.
    """
    centred = gradients - gradients.mean(axis=-1, keepdims=True)
    norms = np.linalg.norm(centred, axis=-1)
    silent = norms <= _SILENT * norms.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = np.where(silent[..., None], np.nan, centred / norms[..., None])
    return directions @ directions.transpose(0, 2, 1), silent


def _plot(table: Array) -> Plot:
    known = np.isfinite(table)
    # Pairs that are silent in every window are drawn as 0.
    mean = np.where(known, np.abs(table), 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    title = "Absolute correlation of slots' gradients, mean over windows"
    return Plot.table(title, "slot", "slot", mean.tolist())
