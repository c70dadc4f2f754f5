"""O: does the model beat predictors that learn nothing, or only a linear filter?

The family's linear baselines on the split that the model is looked at on, and the model beside them; the report has all
others. It is judged against the
least-squares AR(64) on the same targets, difference by difference, so that hard targets weigh on both alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.diagnose.api import Baseline, Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.baselines import below_and_in, linear_baselines
from analysis.spacing_mdn.marginal import alarm
from analysis.spacing_mdn.sweep import Sweep, finite_sweep
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import Interval
from trainables.api import Split
from trainables.arrays import Array
from trainables.errors import DataError
from trainables.spacing_mdn.data.sets import UNORDERED
from trainables.spacing_mdn.data.spacings import SpacingData, load
from trainables.spacing_mdn.features.linear import fit_ar

_ORDER = 64  # of the linear predictor that has to be beaten
_MIN_GAIN = 0.0  # nats per spacing over it


@diagnostic("O: baselines", name="baselines")
def against_baselines(subject: Any) -> Finding:
    """Return a finding with values, in nats per spacing: ``gain``, the NLL of AR(64) less the model's on the model's
    targets; ``nll`` and ``nll_ar64`` on these; ``baselines_beaten``, how many; and each baseline's NLL on the whole
    split by its name. On spacings in a random order it is the finding of `marginal.alarm`.
    """
    swept, split = finite_sweep(subject.sample), subject.sample.split
    try:
        data = load(subject.config.data, subject.data_dir)
        if subject.config.data == UNORDERED:
            return alarm(below_and_in(data, split)[0].spacings, swept)
        rows = linear_baselines(data, split)
    except DataError as error:
        raise NoEvidence(f"The baselines could not be measured: {error}.") from error
    return _judge(swept.nll, linear_nll(data, split, swept), rows)


def _judge(model: Array, linear: Array, rows: list[Baseline]) -> Finding:
    gain, nll = mean_interval(linear - model), mean_interval(model)
    beaten = sum(nll.value < row.value for row in rows)
    best = min(rows, key=lambda row: row.value)
    good = gain.value > _MIN_GAIN
    than = "better" if gain.value >= 0.0 else "worse"
    behind = f"; the best of them, {best.name}, reaches {best.value:.3f}" if beaten < len(rows) else ""
    return answer(
        verdict(gain, lambda value: value > _MIN_GAIN),
        f"With {nll.value:.3f} nats per spacing the model is {than} than the linear predictor AR({_ORDER}) by "
        f"{shown(gain.size)} nats on the same {len(model)} targets and beats {beaten} of {len(rows)} "
        f"baselines{behind}: it has learned {'more' if good else 'no more'} than a linear filter.",
        {
            "gain": gain,
            "nll": nll,
            "nll_ar64": mean_interval(linear),
            "baselines_beaten": float(beaten),
            **{row.name: row.value for row in rows},
        },
        {"gain": _MIN_GAIN},
        (_plot(rows, nll),),
    )


def linear_nll(data: SpacingData, split: Split, swept: Sweep) -> Array:
    """(targets,) nats that AR(64), fitted on all below the split, gives to the targets of ``swept``."""
    below, part = below_and_in(data, split)
    model = fit_ar(below.spacings, _ORDER)
    residuals = model.residuals(np.concatenate([below.spacings[-_ORDER:], part.spacings]))[swept.positions]
    return 0.5 * np.square(residuals / model.sigma) + math.log(model.sigma) + 0.5 * math.log(2.0 * math.pi)


def _plot(rows: list[Baseline], nll: Interval) -> Plot:
    measured = Series("baselines", tuple(float(index) for index in range(len(rows))), tuple(r.value for r in rows))
    return Plot(
        "Baselines and the model",
        "predictor",
        "NLL (nats per spacing)",
        "bar",
        (measured, Series.of("model", [nll], [float(len(rows))])),
        lines={"model": nll.value},
        x_ticks=(*(row.name for row in rows), "model"),
    )
