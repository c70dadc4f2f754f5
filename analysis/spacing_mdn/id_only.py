"""L: do the slots' learned contents matter, or would their IDs do alone?

The change of the NLL when all contents are zeroed and only IDs are left: all slots stay and still read the data.
"""

from __future__ import annotations

from typing import Any

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.slots import nll_under
from analysis.stats.bootstrap import mean_interval
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.slots import SlotControl

_MIN_CHANGE = 0.02  # nats that contents are worth at least, in the mean


@diagnostic("L: ID only, contents zeroed")
def id_only(subject: Any) -> Finding:
    """Return a finding with values: ``nll`` as evaluated, ``nll_id_only`` without contents, and ``change``, the latter
    less the former; nats per spacing.
    """
    sample: Sample = subject.sample
    setting = sample.setting
    if not subject.config.n_slots:
        raise NoEvidence("The model has no slots, so there are no contents to zero.")
    if not setting.content:
        raise NoEvidence("The model is trained and evaluated without contents (content_mode zeroed).")
    before, after = nll_under(sample, (setting, SlotControl(ids=setting.ids, content=False)))
    change, own, without = (mean_interval(nll) for nll in (after - before, before, after))
    meaning = "contents carry next to nothing, the model would do without them"
    if abs(change.value) >= _MIN_CHANGE:
        meaning = "contents carry something" if change.value > 0.0 else "contents do harm on these windows"
    plot = Plot(
        "NLL with and without the slots' contents",
        "slots",
        "NLL (nats per spacing)",
        "bar",
        (Series.of("sampled windows", (own, without)),),
        x_ticks=("content and ID", "ID only"),
    )
    return answer(
        verdict(change, lambda value: value >= _MIN_CHANGE),
        f"With the slots' contents zeroed and only their IDs left, the NLL changes by {shown(change)} nats "
        f"(from {own.value:.3f}): {meaning}.",
        {"nll": own, "nll_id_only": without, "change": change},
        {"change": _MIN_CHANGE},
        (plot,),
    )
