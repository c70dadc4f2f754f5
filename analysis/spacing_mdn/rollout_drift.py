"""G: does the model stay sane when it goes on from its own predictions?

From evenly spread sampled windows the model predicts 200 spacings in a row, each time feeding the mean of its mixture
back as if it were the next spacing, all inputs recomputed from the series so far. Reported is the mean absolute error
of the spacing 1, 10, 50 and 200 steps ahead, judged the slope of its logarithm on the logarithm of the horizon. The
mean, and not a draw, is fed back: nothing is random, and the error of one step is the model's own.

No good forecast is expected. Spacings are a stationary series with a short memory, so a sound model's error rises to
that of always predicting 1 and stays there (a slope near 0); one that amplifies its own errors leaves it behind. A
density so sharp that its error grew tenfold and more up to that level would fail as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.diagnose.verdicts import require_finite, shown, verdict
from analysis.stats.bootstrap import interval, mean_interval
from trainables.arrays import Array
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.predict import inputs_of, min_past
from trainables.spacing_mdn.sample import Sample

_HORIZONS = (1, 10, 50, 200)
_MAX_SLOPE = 0.5
_MIN_WINDOWS, _MAX_WINDOWS = 8, 16
_CPU_BUDGET = 2.5e12  # multiplications, which 8 windows of preset e4 take: about half a minute on two cores
_SMALLEST = 1e-12  # an error of exactly 0 has no logarithm


@diagnostic("G: rollout drift")
def rollout_drift(subject: Any) -> Finding:
    """Return a finding with values, in spacings (mean 1): ``error_1``, ``error_10``, ``error_50``, ``error_200``, mean
    absolute errors over ``windows``; ``error_constant`` of always predicting 1; ``slope`` of log error on log horizon.
    Intervals by a bootstrap over windows one by one: they lie apart.
    """
    sample: Sample = subject.sample
    if subject.config.has_features:
        raise NoEvidence("The model's features would have to be fitted anew at every step of every rollout.")
    chosen = chosen_windows(sample)
    if not len(chosen):
        raise NoEvidence(f"No sampled window is followed by {_HORIZONS[-1]} spacings of its split to compare with.")
    predicted = rollout(sample, chosen, _HORIZONS[-1])
    spacings = sample.task.part(sample.split).spacings
    first = sample.starts.cpu().numpy()[chosen] + subject.config.context
    truth = spacings[first[:, None] + np.arange(_HORIZONS[-1])]
    errors = np.abs(predicted - truth)
    require_finite("The model's prediction is not finite on sampled windows.", errors[:, 0])
    return _judge(errors, float(np.abs(truth - 1.0).mean()))


def _judge(errors: Array, constant: float) -> Finding:
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(errors))
    values: dict[str, Value] = {
        f"error_{horizon}": mean_interval(errors[:, horizon - 1], 1) for horizon in _HORIZONS if finite[horizon - 1]
    }
    values |= {"error_constant": constant, "windows": float(len(errors))}
    threshold, plots = {"slope": _MAX_SLOPE}, (_plot(errors[:, finite], constant),)
    if not finite.all():
        steps = int(np.argmin(finite)) + 1
        return answer(
            "fail",
            f"Fed with its own predictions, the model leaves finite numbers after {steps} steps: it runs away.",
            values,
            threshold,
            plots,
        )
    at = errors[:, [horizon - 1 for horizon in _HORIZONS]]
    slope = interval(_slope, at, block=1)
    means = at.mean(axis=0)
    good = slope.value < _MAX_SLOPE
    meaning = "its errors do not feed on themselves" if good else "its errors feed on themselves, it runs away"
    return answer(
        verdict(slope, lambda value: value < _MAX_SLOPE),
        f"Fed with its own predictions, the model misses by {means[0]:.3g} spacings after one step and by "
        f"{means[-1]:.3g} after {_HORIZONS[-1]} (always predicting 1 misses by {constant:.3g}; slope "
        f"{shown(slope, 2)}): {meaning}.",
        {**values, "slope": slope},
        threshold,
        plots,
    )


def chosen_windows(sample: Sample) -> NDArray[np.int64]:
    """Indices of sampled windows to start from, evenly spread over those with a whole continuation in the split."""
    config = sample.task.config
    last = len(sample.task.part(sample.split).spacings) - config.context - _HORIZONS[-1]
    usable = np.flatnonzero(sample.starts.cpu().numpy() <= last)
    number = _MAX_WINDOWS
    if sample.task.device.type == "cpu":
        number = min(max(int(_CPU_BUDGET / (_HORIZONS[-1] * _multiplications(config))), _MIN_WINDOWS), _MAX_WINDOWS)
    if len(usable) <= number:
        return usable
    return usable[np.linspace(0, len(usable) - 1, number).round().astype(np.int64)]


def rollout(sample: Sample, chosen: NDArray[np.int64], steps: int) -> Array:
    """(windows, steps) predicted means from the ``chosen`` windows on; NaN from the first step with one not finite."""
    task = sample.task
    begin = sample.starts.cpu().numpy()[chosen] - task.config.ar_features
    spacings = task.part(sample.split).spacings
    series = torch.from_numpy(spacings[begin[:, None] + np.arange(min_past(task.model))]).to(task.device)
    log_height = sample.log_height[torch.from_numpy(chosen)].to(task.device)
    predicted = np.full((len(chosen), steps), np.nan)
    for step in range(steps):
        prediction = task.predict(inputs_of(task.model, series, log_height), sample.setting)
        mean = (prediction.log_pi.double().exp() * prediction.mu.double())[:, -1].sum(dim=-1)
        if not torch.isfinite(mean).all():
            break
        predicted[:, step] = mean.cpu().numpy()
        series = torch.cat((series[:, 1:], mean.unsqueeze(1)), dim=1)
    return predicted


def _multiplications(config: SpacingConfig) -> float:
    """Of one pass of one window, roughly: blocks' matrices, and attention."""
    tokens = config.context + config.n_slots * config.query_cuts
    return float(tokens * config.depth * config.width * (12 * config.width + 2 * config.context))


def _slope(errors: Array) -> float:
    """Least-squares slope of log mean error on log horizon; (windows, horizons)."""
    x = np.log(_HORIZONS)
    x = x - x.mean()
    return float(x @ np.log(np.maximum(errors.mean(axis=0), _SMALLEST)) / (x @ x))


def _plot(errors: Array, constant: float) -> Plot:
    means = np.maximum(errors.mean(axis=0), _SMALLEST)
    series = Series("mean over windows", tuple(range(1, len(means) + 1)), tuple(means.tolist()))
    return Plot(
        "Error of a free rollout",
        "steps ahead",
        "mean absolute error (spacings)",
        "line",
        (series,),
        lines={"always predicting 1": constant},
        log_x=True,
        log_y=True,
    )
