"""O: does the model beat predictors that learn nothing, or only a linear filter?

What it is: the family's baselines on the split that the model is looked at on, and the model beside them. It is judged
against the least-squares AR(64) on the same targets, difference by difference, so that hard targets weigh on both
alike. What it is not: a test between candidates (`analysis.stats.claims`).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.api import Baseline, Estimate, Finding, Plot, Series
from analysis.spacing_mdn.baselines import baselines
from analysis.spacing_mdn.sweep import Sweep, sweep
from analysis.stats.bootstrap import mean_interval
from analysis.verdicts import no_evidence, shown, verdict
from trainables.api import Split
from trainables.errors import DataError
from trainables.spacing_mdn.data import SpacingData, load
from trainables.spacing_mdn.linear import fit_ar

ORDER = 64
"""Of the linear predictor that has to be beaten."""
MIN_GAIN = 0.0
"""Nats per spacing over it."""


class Ladder:
    """Values, in nats per spacing: ``gain``, the NLL of AR(64) less the model's on the model's targets; ``nll`` and
    ``nll_ar64`` on these; ``rungs_beaten``, of all baselines; and each baseline's NLL on the whole split by its name.
    """

    name = "ladder"
    title = "O: ladder of baselines"
    families = ("spacing_mdn",)
    needs: Literal["records", "checkpoint"] = "checkpoint"

    def __call__(self, subject: Any) -> Finding:
        """Answer it for one checkpoint of `spacing_mdn`."""
        swept, split = sweep(subject.sample), subject.sample.split
        if not swept.finite:
            return no_evidence(self.name, "The model's density is not finite along the split.")
        try:
            data = load(subject.config.data, subject.data_dir)
            rungs = baselines(subject.config.data, subject.data_dir, split=split)
        except DataError as error:
            return no_evidence(self.name, f"The baselines could not be measured: {error}.")
        return self._judge(swept.nll, linear_nll(data, split, swept), rungs)

    def _judge(self, model: NDArray[np.float64], linear: NDArray[np.float64], rungs: list[Baseline]) -> Finding:
        gain, nll = mean_interval(linear - model), mean_interval(model)
        beaten = sum(nll.value < rung.value for rung in rungs)
        best = min(rungs, key=lambda rung: rung.value)
        good = gain.value > MIN_GAIN
        than = "better" if gain.value >= 0.0 else "worse"
        behind = f"; the best of them, {best.name}, reaches {best.value:.3f}" if beaten < len(rungs) else ""
        return Finding(
            self.name,
            verdict(gain, lambda value: value > MIN_GAIN),
            f"With {nll.value:.3f} nats per spacing the model is {than} than the linear predictor AR({ORDER}) by "
            f"{shown(_positive(gain))} nats on the same {len(model)} targets and beats {beaten} of {len(rungs)} "
            f"baselines{behind}: it has learned {'more' if good else 'no more'} than a linear filter.",
            {
                "gain": gain,
                "nll": nll,
                "nll_ar64": mean_interval(linear),
                "rungs_beaten": float(beaten),
                **{rung.name: rung.value for rung in rungs},
            },
            {"gain": MIN_GAIN},
            (_plot(rungs, nll),),
        )


def linear_nll(data: SpacingData, split: Split, swept: Sweep) -> NDArray[np.float64]:
    """(targets,) nats that AR(64), fitted on all below the split, gives to the targets of ``swept``."""
    below = data.train.spacings
    if split == "test":
        below = np.concatenate([below, data.val.spacings])
    model = fit_ar(below, ORDER)
    part = data.val if split == "val" else data.test
    residuals = model.residuals(np.concatenate([below[-ORDER:], part.spacings]))[swept.positions]
    return 0.5 * np.square(residuals / model.sigma) + math.log(model.sigma) + 0.5 * math.log(2.0 * math.pi)


def _positive(gain: Estimate) -> Estimate:
    """The difference as a size, for a sentence that says its sign in words."""
    if gain.value >= 0.0:
        return gain
    return Estimate(-gain.value, -gain.high, -gain.low)


def _plot(rungs: list[Baseline], nll: Estimate) -> Plot:
    at = (float(len(rungs)),)
    return Plot(
        "Baselines and the model",
        "predictor",
        "NLL (nats per spacing)",
        "bar",
        (
            Series("baselines", tuple(float(index) for index in range(len(rungs))), tuple(r.value for r in rungs)),
            Series("model", at, (nll.value,), (nll.low,), (nll.high,)),
        ),
        lines={"model": nll.value},
        x_ticks=(*(rung.name for rung in rungs), "model"),
    )


DIAGNOSTIC = Ladder()
