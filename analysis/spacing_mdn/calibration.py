"""N: are the predicted densities as wide as the truth is spread?

The probability integral transform (PIT) of each target under its predicted mixture, which is uniform if the densities
are right; how far its distribution is from uniform; what share of targets central intervals hold; and the continuous
ranked probability score (CRPS). Not sharpness: a marginal density is calibrated, and useless.

Sources: A. P. Dawid, JRSS A 147 (1984), 278-292 (PIT); E. P. Grimit, T. Gneiting, V. J. Berrocal, N. A. Johnson, Quart.
J. Roy. Meteorol. Soc. 132 (2006), 2925-2942, equations 5 and 6 (CRPS of a mixture of Gaussians).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import kstwo

from analysis.diagnose.api import Finding, Plot, Series, answer, diagnostic
from analysis.diagnose.verdicts import shown, verdict
from analysis.spacing_mdn.sweep import Sweep, finite_sweep
from analysis.stats.bootstrap import interval, mean_interval
from analysis.stats.interval import NORMAL_95, Interval
from trainables.arrays import Array

_MAX_KS = 0.02  # Kolmogorov-Smirnov distance of the PIT from uniform
_BINS = 20
_PAIRS = 1 << 22  # pairs of components that are held at once
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)


@diagnostic("N: calibration")
def calibration(subject: Any) -> Finding:
    """Return a finding with values: ``ks``, between 0 and 1; ``ks_by_chance``, which a calibrated model exceeds in 5
    cases of 100 with as many targets; ``coverage_50`` and ``coverage_90``, shares of targets in the central intervals;
    ``crps`` in spacings; ``num_targets``.
    """
    swept = finite_sweep(subject.sample)
    return _judge(pit(swept), crps(swept))


def _judge(transformed: Array, scores: Array) -> Finding:
    number = len(transformed)
    ks, chance = ks_distance(transformed), float(kstwo.ppf(0.95, number))
    inside = [mean_interval((np.abs(transformed - 0.5) <= share / 2).astype(np.float64)) for share in (0.5, 0.9)]
    judgement = verdict(ks, lambda value: value < _MAX_KS)
    meaning = {
        "pass": "the densities are as wide as they should be",
        "fail": "the densities are wrong in width or place",
    }.get(judgement, f"these targets cannot tell whether it is below {_MAX_KS}")
    return answer(
        judgement,
        f"Targets fall into the predicted densities unevenly by {shown(ks)} (KS distance; chance alone reaches "
        f"{chance:.3f} with {number} targets), and {100 * inside[0].value:.1f}% and {100 * inside[1].value:.1f}% "
        f"of them into central 50% and 90% intervals: {meaning}.",
        {
            "ks": ks,
            "ks_by_chance": chance,
            "coverage_50": inside[0],
            "coverage_90": inside[1],
            "crps": mean_interval(scores),
            "num_targets": float(number),
        },
        {"ks": _MAX_KS},
        (_plot(transformed),),
    )


def pit(swept: Sweep) -> Array:
    """(targets,) the predicted probability of a value up to the target."""
    z = (swept.targets[:, None] - swept.mu) / swept.sigma
    weights = np.exp(swept.log_pi, dtype=np.float64)
    probability: Array = np.clip((weights * ndtr(z)).sum(axis=1), 0.0, 1.0)
    return probability


def crps(swept: Sweep) -> Array:
    """(targets,) continuous ranked probability score of each target's mixture, in spacings; lower is better."""
    rows = max(1, _PAIRS // swept.mu.shape[1] ** 2)
    parts = []
    for start in range(0, len(swept.targets), rows):
        some = slice(start, start + rows)
        # The score is a small difference of two sums of distances, so float64 from here on.
        weights = np.exp(swept.log_pi[some], dtype=np.float64)
        mu, sigma = swept.mu[some].astype(np.float64), swept.sigma[some].astype(np.float64)
        to_target = _mean_distance(swept.targets[some, None] - mu, sigma)
        between = _mean_distance(mu[:, :, None] - mu[:, None, :], np.hypot(sigma[:, :, None], sigma[:, None, :]))
        pairs = weights[:, :, None] * weights[:, None, :]
        parts.append((weights * to_target).sum(axis=1) - 0.5 * (pairs * between).sum(axis=(1, 2)))
    return np.concatenate(parts)


def _mean_distance(mu: Array, sigma: Array) -> Array:
    """E|X| for X ~ N(mu, sigma^2): Grimit et al. (2006), equation 6."""
    z = mu / sigma
    distance: Array = 2.0 * sigma * _INV_SQRT_2PI * np.exp(-0.5 * z**2) + mu * (2.0 * ndtr(z) - 1.0)
    return distance


def ks_distance(values: Array) -> Interval:
    """Largest distance of the distribution of ``values`` from the uniform one on [0, 1].

    The interval is the distance plus and minus what 95% of block resamples stay within of the sample they are drawn
    from: no two distribution functions that are so close can differ by more in their distance from a third.
    """
    ordered, number = np.sort(values), len(values)
    above = np.arange(1, number + 1) / number - ordered
    ks = float(max(above.max(), (1.0 / number - above).max()))
    ranks = np.argsort(np.argsort(values))
    uniform = np.arange(1, number + 1) / number

    def distance(drawn: NDArray[np.int64]) -> float:
        return float(np.abs(np.bincount(drawn, minlength=number).cumsum() / number - uniform).max())

    within = interval(distance, ranks, num=500, level=0.9).high
    return Interval(ks, max(0.0, ks - within), min(1.0, ks + within))


def _plot(transformed: Array) -> Plot:
    counts, edges = np.histogram(transformed, bins=_BINS, range=(0.0, 1.0))
    density = counts * _BINS / len(transformed)
    error = NORMAL_95 * np.sqrt(density * _BINS / len(transformed))
    centers = (edges[:-1] + edges[1:]) / 2
    series = Series(
        "targets",
        *(tuple(part.tolist()) for part in (centers, density, np.maximum(density - error, 0), density + error)),
    )
    return Plot(
        "Where targets fall in the predicted densities",
        "predicted probability of a value up to the target (PIT)",
        "density of targets",
        "bar",
        (series,),
        lines={"calibrated": 1.0},
    )
