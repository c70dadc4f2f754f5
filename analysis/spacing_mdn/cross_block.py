"""H: is the model as good higher up as lower down?

The NLL of 8 runs of the split by height, how far they differ, and how far sampling alone would make them differ; and of
up to 32 strips, as a line with its band. A model that has learned what holds at one height drifts as the lines of the
primes move with log height. The coefficient of variation is reported and not judged: it divides by a mean that passes
through 0.

The spread of the runs' means contains their sampling error, which with a hundred targets a run is larger than the
threshold. So the variance of that error is taken off (the method of moments of a one-way layout with random effects:
Searle, Casella, McCulloch, Variance Components, 1992, section 3.5), and the spread as seen is reported beside it. The
interval is a parametric bootstrap about the runs' means with their errors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Verdict, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.sweep import RUNS, finite_sweep
from analysis.stats.bootstrap import mean_interval
from analysis.stats.interval import NORMAL_95, Interval
from trainables.arrays import Array

_MAX_STD = 0.05  # nats between runs
_DRAWS = 4000
_SEED = 8128
_STRIPS, _PER_STRIP = 32, 128  # of the finer picture: how many at the most, and targets in each at the least
_NLL = "NLL (nats per spacing)"


@diagnostic("H: cross-block stability")
def cross_block(subject: Any) -> Finding:
    """Return a finding with values, all in nats but the last two: ``std``, between runs without the sampling error;
    ``std_seen``, with it; ``range``, the worst run less the best; ``range_by_chance``, which equally good runs exceed
    in 5 cases of 100; ``nll`` over all; ``variation``, ``std_seen`` over the absolute mean; ``num_targets``.

    It passes if ``std`` is below 0.05 and ``range`` within chance; with a small ``std`` a larger range only warns.
    """
    swept = finite_sweep(subject.sample)
    runs = [swept.nll[swept.run == index] for index in range(RUNS)]
    if min(len(run) for run in runs) < 2:
        raise NoEvidence(f"The split holds {len(swept.nll)} targets: too few for {RUNS} runs.")
    means = [mean_interval(run, seed=index) for index, run in enumerate(runs)]
    heights = subject.task.part(subject.sample.split).log_height_per_point()[swept.positions]
    at = [float(heights[swept.run == index].mean()) for index in range(RUNS)]
    plots = (_plot(means, at, mean_interval(swept.nll)), _bands(swept.nll, heights))
    return _judge(means, mean_interval(swept.nll), len(swept.nll), plots)


def _judge(runs: list[Interval], nll: Interval, num: int, plots: tuple[Plot, ...]) -> Finding:
    means = np.array([run.value for run in runs])
    errors = np.array([run.half_width / NORMAL_95 for run in runs])
    std, chance = spread(means, errors)
    seen, reach = float(means.std(ddof=1)), float(np.ptp(means))
    judgement: Verdict = verdict(std, lambda value: value < _MAX_STD)
    if judgement == "pass" and reach > chance:
        judgement = "warn"
    by_chance = "no more" if reach <= chance else "more"
    meaning = "as good at every height" if std.value < _MAX_STD else "better at some heights than at others"
    if judgement == "warn":
        meaning += ", as far as these targets tell"
    return answer(
        judgement,
        f"From the lowest to the highest of {RUNS} runs ({num} targets) the NLL differs by {reach:.3f} nats, "
        f"{by_chance} than chance explains ({chance:.3f}), with a standard deviation of {shown(std)} nats beyond "
        f"sampling error: the model is {meaning}.",
        {
            "std": std,
            "std_seen": seen,
            "range": reach,
            "range_by_chance": chance,
            "nll": nll,
            "variation": seen / max(abs(float(means.mean())), 1e-9),
            "num_targets": float(num),
        },
        {"std": _MAX_STD, "range": chance},
        plots,
    )


def spread(means: Array, errors: Array) -> tuple[Interval, float]:
    """How far runs differ beyond the standard ``errors`` of their means, and the range that errors reach in 95%.

    Returns:
        The standard deviation between runs, never negative, with a 95% interval; the range, in the units of ``means``.
    """
    noise = np.random.default_rng(_SEED).normal(size=(_DRAWS, len(means))) * errors
    own = float(means.var(ddof=1) - np.mean(errors**2))
    drawn = (means + noise).var(axis=1, ddof=1)
    low, high = own + np.quantile(drawn - drawn.mean(), [0.025, 0.975])
    std = Interval(*(math.sqrt(max(0.0, variance)) for variance in (own, low, high)))
    return std, float(np.quantile(np.ptp(noise, axis=1), 0.95))


def _plot(runs: list[Interval], heights: list[float], nll: Interval) -> Plot:
    series = Series.of("run, with its 95% interval", runs, heights)
    return Plot("NLL of 8 runs", _label(heights), _NLL, "points", (series,), lines={"mean": nll.value})


def _bands(nll: Array, heights: Array) -> Plot:
    """The NLL of strips of equally many targets, in order of height."""
    strips = np.array_split(np.arange(len(nll)), max(1, min(_STRIPS, len(nll) // _PER_STRIP)))
    means = [mean_interval(nll[strip], seed=index) for index, strip in enumerate(strips)]
    at = [float(heights[strip].mean()) for strip in strips]
    series = Series.of("strip, with its 95% band", means, at)
    return Plot("NLL by height", _label(at), _NLL, "line", (series,), lines={"mean": float(nll.mean())})


def _label(heights: list[float]) -> str:
    return "log height, ln(t / 2 pi)" if np.ptp(heights) > 0.0 else "log height (none in this data set)"
