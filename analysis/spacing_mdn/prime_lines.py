"""P: how much of what the primes write into the spacings has the model left unexplained?

The variance at the lines of the primes, in the spacings and in what is left of them after the predicted mean is taken
off, and the ratio of the two. Along the zeros a prime p makes a line at ln p / ln(t / 2 pi) cycles per spacing, from
the explicit formula (H. M. Edwards, Riemann's Zeta Function, 1974, section 3.2). A model that has learned the primes
leaves nothing there; one that has only learned repulsion leaves all. Powers of primes, whose lines are weaker, are left
out.

The frequency falls as t rises, so the lines are fitted along the height instead: at g(n) ln p, where g(n) is the height
at which the smooth count of zeros is n. All primes are fitted together by least squares, and what as many sines would
explain of white noise is taken off. Intervals are a jackknife over 32 stretches, not a bootstrap: drawing stretches
twice would itself make noise look like lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import welch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.sweep import Sweep, finite_sweep
from analysis.stats.interval import NORMAL_95, Interval
from trainables.arrays import Array
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part

_MAX_SHARE_LEFT = 0.9  # a model that leaves more of the lines has learned next to nothing of them, and is warned of
_GROUPS = 32
_SEGMENT = 128  # spacings in a segment of the spectrum
_MOST_PRIMES = 200
_MAX_MISFIT = 4.0  # zeros; the count of zeros strays from the smooth one by less wherever it has been computed


@diagnostic("P: prime lines in the residuals")
def prime_lines(subject: Any) -> Finding:
    """Return a finding with values, shares between 0 and 1: ``share_left``, of the variance at the lines;
    ``lines_of_spacings`` and ``lines_of_residuals``, of the variance of each that lies at the lines; ``num_primes``,
    ``num_targets``.

    Reported rather than judged: it never fails, and warns where nearly all of the lines is left.
    """
    swept = finite_sweep(subject.sample)
    part = subject.task.part(subject.sample.split)
    heights = smooth_heights(part)
    if heights is None:
        raise NoEvidence("The data set's heights are not those of zeta zeros: it has no lines of primes.")
    log_heights = np.log(heights[swept.positions] / (2.0 * math.pi))
    primes = resolved_primes(float(log_heights.min()), len(swept.targets))
    if not len(primes) or len(swept.targets) < 2 * _GROUPS + 4 * len(primes):
        raise NoEvidence(f"{len(swept.targets)} targets are too few to tell one prime's line from another's.")
    lines = fit_lines(heights[swept.positions], primes, swept.targets, swept.targets - swept.mean)
    if not lines.of_spacings.low > 0.0:
        raise NoEvidence("The spacings themselves show no variance at the lines of the primes.")
    return _judge(lines, swept, np.log(primes) / log_heights.mean())


def _judge(lines: _Lines, swept: Sweep, frequencies: Array) -> Finding:
    number, left = len(frequencies), lines.share_left
    judgement = verdict(left, lambda value: value < _MAX_SHARE_LEFT)
    meaning = "has learned part of them" if left.value < _MAX_SHARE_LEFT else "has learned next to nothing of them"
    return answer(
        "warn" if judgement == "fail" else judgement,
        f"The lines of the {number} lowest primes hold {100 * lines.of_spacings.value:.0f}% of the variance of the "
        f"spacings, and the model's predictions leave a share of {shown(left)} of that: it {meaning}.",
        {
            "share_left": left,
            "lines_of_spacings": lines.of_spacings,
            "lines_of_residuals": lines.of_residuals,
            "num_primes": float(number),
            "num_targets": float(len(swept.targets)),
        },
        {"share_left": _MAX_SHARE_LEFT},
        (_line_plot(lines, frequencies), _spectrum(swept)),
    )


@dataclass(frozen=True)
class _Lines:
    """What was fitted at the lines: shares of variance, and (2, primes) the variance of each line in each series."""

    share_left: Interval
    of_spacings: Interval
    of_residuals: Interval
    power: Array


def smooth_heights(part: Part) -> Array | None:
    """(spacings,) the height at which the smooth count of zeros reaches each spacing's place.

    None where the heights of the blocks and their spacings do not belong to the zeta zeros, as in the GUE control.
    """
    start = 2.0 * math.pi * np.exp(part.log_height)
    count = start / (2.0 * math.pi) * (part.log_height - 1.0)
    offset = count - BLOCK * np.arange(len(count))
    if start.min() < 14.0 or np.abs(offset - offset.mean()).max() > _MAX_MISFIT:
        return None
    wanted = offset.mean() + np.arange(len(part.spacings))
    heights: Array = np.repeat(start, BLOCK)
    for _ in range(8):  # Newton from less than a block away, on a function that is nearly linear
        logs = np.log(heights / (2.0 * math.pi))
        heights = heights - (heights * (logs - 1.0) - 2.0 * math.pi * wanted) / logs
    return heights


def resolved_primes(log_height: float, num_targets: int) -> Array:
    """Primes whose lines lie below half a cycle per spacing and apart from those of their neighbours, 200 at most.

    Primes p and p + 2 are 2 / (p ln(t / 2 pi)) cycles per spacing apart, which takes p ln(t / 2 pi) / 2 spacings to
    tell; twice as many are asked for.
    """
    most = int(min(math.exp(min(log_height / 2.0, 20.0)), num_targets / log_height))
    sieve = np.ones(most + 1, dtype=bool)
    sieve[:2] = False
    for factor in range(2, math.isqrt(most) + 1):
        sieve[factor * factor :: factor] = False
    return np.flatnonzero(sieve)[:_MOST_PRIMES].astype(np.float64)


def fit_lines(heights: Array, primes: Array, spacings: Array, residuals: Array) -> _Lines:
    """Fit sines of every prime's frequency to both series along ``heights``; the means of the series play no part."""
    phase = heights[:, None] * np.log(primes)
    design = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    series = np.stack([spacings - spacings.mean(), residuals - residuals.mean()], axis=1)
    # Sums over stretches: leaving one out is a subtraction, not another pass over the targets.
    parts = np.array_split(np.arange(len(heights)), _GROUPS)
    gram = np.stack([design[part].T @ design[part] for part in parts])
    moment = np.stack([design[part].T @ series[part] for part in parts])
    energy = np.stack([np.square(series[part]).sum(axis=0) for part in parts])
    sums = [part.sum(axis=0) for part in (gram, moment, energy)]
    whole = _ratios(sums, len(heights))
    without = np.stack(
        [
            _ratios([total - own for total, own in zip(sums, group, strict=True)], len(heights) - len(part))
            for part, *group in zip(parts, gram, moment, energy, strict=True)
        ]
    )
    error = np.sqrt((_GROUPS - 1) / _GROUPS * np.square(without - without.mean(axis=0)).sum(axis=0))
    half = NORMAL_95 * error
    bounds = zip(whole, whole - half, whole + half, strict=True)
    left, of_spacings, of_residuals = (Interval(*map(float, triple)) for triple in bounds)
    amplitude = np.linalg.solve(sums[0], sums[1]).T.reshape(2, 2, -1)
    return _Lines(left, of_spacings, of_residuals, np.square(amplitude).sum(axis=1) / 2.0)


def _ratios(sums: list[Array], number: int) -> Array:
    """Share left, share of the spacings and share of the residuals at the lines, from sums over ``number`` targets."""
    gram, moment, energy = sums
    explained = (moment * np.linalg.solve(gram, moment)).sum(axis=0)
    fitted = len(gram)
    noise = (energy - explained) / (number - fitted - 1)
    lines = explained - fitted * noise
    # Residuals without any variance have none at the lines either.
    of_each = lines / np.maximum(energy, 1e-300)
    return np.array([lines[1] / lines[0], *of_each])


def _line_plot(lines: _Lines, frequencies: Array) -> Plot:
    x = tuple(frequencies.tolist())
    named = zip(("spacings", "residuals"), lines.power, strict=True)
    return Plot(
        "Variance at the lines of the primes 2, 3, 5, ...",
        "frequency ln p / ln(t / 2 pi) (cycles per spacing)",
        "variance of the line (spacings squared)",
        "points",
        tuple(Series(name, x, tuple(power.tolist())) for name, power in named),
        log_y=True,
    )


def _spectrum(swept: Sweep) -> Plot:
    """The whole spectrum of both series, averaged over runs; Welch, IEEE Trans. Audio Electroacoust. 15 (1967)."""
    residuals = swept.targets - swept.mean
    runs = [swept.run == index for index in np.unique(swept.run)]
    length = min(_SEGMENT, *(int(run.sum()) for run in runs))
    weights = [int(run.sum()) for run in runs]
    series = []
    for name, values in (("spacings", swept.targets), ("residuals", residuals)):
        powers = [welch(values[run] - values.mean(), nperseg=length, detrend=False) for run in runs]
        power = np.average([p for _, p in powers], axis=0, weights=weights)
        # The lowest and the highest are one-sided halves.
        series.append(Series(name, tuple(powers[0][0][1:-1].tolist()), tuple(power[1:-1].tolist())))
    return Plot(
        "Spectrum of spacings and residuals",
        "frequency (cycles per spacing)",
        "power density (spacings squared per cycle)",
        "line",
        tuple(series),
        log_y=True,
    )
