"""M: how much of what the model knows hangs on the slots' IDs?

The rise of the NLL when all IDs are taken away, as a share of what the model gains over AR(1), the linear predictor
from the last spacing alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.slots import nll_under
from analysis.stats.bootstrap import interval, mean_interval
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.errors import DataError
from trainables.spacing_mdn.data.spacings import load
from trainables.spacing_mdn.features.linear import fit_ar
from trainables.spacing_mdn.sample import Sample
from trainables.spacing_mdn.slots import SlotControl

_MAX_SHARE = 0.3  # of the gain over AR(1) that may be lost with the IDs
_MIN_GAIN = 1e-3  # nats; a resample without gain makes the share large, not infinite


@diagnostic("M: content only, IDs off")
def content_only(subject: Any) -> Finding:
    """Return a finding with values, nats per spacing: ``nll`` as evaluated, ``nll_content_only`` without IDs,
    ``nll_ar1`` of the linear predictor on the same targets, ``change`` (second less first), ``gain`` (third less
    first). ``share`` is change / gain, and negative where the model is better off without IDs.
    """
    sample: Sample = subject.sample
    setting = sample.setting
    if not subject.config.n_slots:
        raise NoEvidence("The model has no slots, so there are no IDs to take away.")
    if not setting.ids:
        raise NoEvidence("The model is evaluated without IDs (eval_slot_id_mode off).")
    before, after = nll_under(sample, (setting, SlotControl(ids=False, content=setting.content)))
    try:
        data = load(subject.config.data, subject.data_dir)
    except DataError as error:
        raise NoEvidence(f"The linear predictor AR(1) could not be fitted: {error}.") from error
    return _judge(before, after, ar1_nll(sample, data.train.spacings))


def _judge(before: Array, after: Array, linear: Array) -> Finding:
    change, gain = mean_interval(after - before), mean_interval(linear - before)
    named = {"nll": before, "nll_content_only": after, "nll_ar1": linear}
    levels = {name: mean_interval(nll) for name, nll in named.items()}
    values: dict[str, Value] = {**levels, "change": change, "gain": gain}
    plots = (_plot(list(levels.values())),)
    if gain.value <= 0.0 or gain.low <= 0.0:
        beats = "gains nothing that stands out" if gain.value > 0.0 else "gains nothing"
        return answer(
            "no_evidence",
            f"The model {beats} over the linear predictor AR(1) (its NLL is lower by {shown(gain)} nats), so no "
            f"gain can be lost with the IDs; taking them away changes the NLL by {shown(change)} nats.",
            values,
            {"share": _MAX_SHARE},
            plots,
        )
    share = interval(_share, np.stack([after - before, linear - before], axis=1))
    good = share.value <= _MAX_SHARE
    meaning = "most of what the model knows does not hang on IDs" if good else "the model leans on slot IDs"
    return answer(
        verdict(share, lambda value: value <= _MAX_SHARE),
        f"Without slot IDs the NLL changes by {shown(change)} nats, {shown(share)} of the {gain.value:.3f} nats "
        f"that the model gains over the linear predictor AR(1): {meaning}.",
        {**values, "share": share},
        {"share": _MAX_SHARE},
        plots,
    )


def ar1_nll(sample: Sample, train: Array) -> Array:
    """(windows,) mean NLL in nats of the targets of `Sample.nll` under an AR(1) fitted on ``train``."""
    config = sample.task.config
    model = fit_ar(train, 1)
    spacings = sample.task.part(sample.split).spacings
    last = sample.starts.cpu().numpy() + config.context
    targets = last[:, None] + np.arange(1 - config.scored, 1)
    residuals = model.residuals(np.stack([spacings[targets - 1], spacings[targets]], axis=-1))[..., 0]
    scores = 0.5 * np.square(residuals / model.sigma) + np.log(model.sigma * np.sqrt(2.0 * np.pi))
    means: Array = scores.mean(axis=1)
    return means


def _share(pairs: Array) -> float:
    change, gain = pairs.mean(axis=0)
    return float(change / max(gain, _MIN_GAIN))


def _plot(bars: list[Interval]) -> Plot:
    return Plot(
        "NLL with and without slot IDs",
        "predictor",
        "NLL (nats per spacing)",
        "bar",
        (Series.of("sampled windows", bars),),
        x_ticks=("content and ID", "content only", "AR(1)"),
    )
