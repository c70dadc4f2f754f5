"""The lines of the primes in a series along the zeros: how strong each is, where it begins, and what all of them hold.

The explicit formula (H. M. Edwards, Riemann's Zeta Function, 1974, section 3.2) has S(t) = -sum of a sin(w t), with
w = k ln p and a = 1 / (pi k p^(k/2)). A spacing is 1 less the rise of S from one zero to the next. To first order in a
line, zeros whose spacings s are those of the data turn it into a covariance of the spacing with exp(-i w t), t the zero
before, of a (phi - 1) / 2i; phi is the mean of exp(i w' s), and w' = 2 pi w / h the advance of phase over a mean
spacing at log height h. So an amplitude is the covariance divided by (phi - 1) / 2i: of evenly spaced zeros |phi - 1|
is 2 sin(w' / 2), the rise of a sine over a step.

Covariances, each line by itself: the zeros' density has the lines as well (E. Landau, Math. Ann. 71 (1911), 548-564),
so that in a regression on all lines at once those of the powers of a prime bend one another. The regression, fitted
below, tells what share of a series the lines hold where it was not fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.spacing_mdn.extraction.resampled import NO_VARIANCE, blocks, drawn, percentiles, share_of_variance
from analysis.spacing_mdn.extraction.seen import Places
from analysis.spacing_mdn.prime_lines import resolved_primes
from analysis.stats.interval import Interval
from trainables.arrays import Array
from trainables.spacing_mdn.features.prime_lines import Lines, lines_up_to

_TURN = 180.0  # degrees: a phase that may be any


@dataclass(frozen=True)
class Line:
    """One line of a series, as a line of S: -amplitude sin(w t - phase).

    Attributes:
        amplitude: in zeros; the interval is along the phase found, and reaches zero where there may be no line.
        phase: in degrees; the explicit formula has 0. Ends are NaN where the amplitude may be zero.
    """

    amplitude: Interval
    phase: Interval


@dataclass(frozen=True)
class LineFit:
    """What was found in one series.

    Attributes:
        lines: the frequencies.
        found: one each.
        mean: of the series.
        cosine, sine: (lines,) of the regression on all lines, in units of the series.
    """

    lines: Lines
    found: tuple[Line, ...]
    mean: float
    cosine: Array
    sine: Array

    def contributions(self, at: Places) -> Array:
        """(n, lines): what each line adds to the series at other places."""
        phase = at.times[:, None] * self.lines.omega
        waves: Array = self.cosine * np.cos(phase) + self.sine * np.sin(phase)
        return waves


@dataclass(frozen=True)
class Shares:
    """Shares of the variance of a series at lines that were fitted elsewhere.

    Attributes:
        all: of all lines together: 1 less what is left, negative if they do harm.
        by_prime: of a prime and its powers, the covariance of what they add with the series; their sum is near ``all``.
    """

    all: Interval
    by_prime: dict[int, float]


def resolved_lines(at: Places) -> Lines | None:
    """Powers of primes up to the largest prime whose line can be told from its neighbours' along n targets."""
    primes = resolved_primes(float(at.log_height.min()), len(at.times))
    return lines_up_to(int(primes[-1])) if len(primes) else None


def fit(series: Array, at: Places, lines: Lines) -> LineFit:
    """Measure ``lines`` in ``series`` (n,), of what follows each zero."""
    number, half = len(series), len(lines.omega)
    gram, moment = np.zeros((2 * half + 1, 2 * half + 1)), np.zeros(2 * half + 1)
    phi = np.zeros(half, dtype=np.complex128)
    for block in blocks(number):
        design = _design(at, lines, block)
        gram += design.T @ design
        moment += design.T @ series[block]
        advance = 2.0 * math.pi * (at.spacings[block] / at.log_height[block])[:, None] * lines.omega
        phi += np.exp(1j * advance).sum(axis=0)
    response = (phi / number - 1.0) / 2j
    mean = float(moment[-1]) / number
    covariance = (_complex(moment) - mean * _complex(gram[-1])) / number
    coef: Array = np.linalg.lstsq(gram, moment, rcond=None)[0].astype(np.float64)
    noise = _noise(series, at, lines, coef) / number
    found = tuple(
        _line(value, value + draw) for value, draw in zip(covariance / response, (noise / response).T, strict=True)
    )
    return LineFit(lines, found, mean, coef[:half], coef[half:-1])


def shares(found: LineFit, series: Array, at: Places) -> Shares:
    """What the lines that were fitted to one stretch hold of ``series`` (n,) along another."""
    waves = found.contributions(at)
    about = series - series.mean()
    each = about @ waves / max(float(about @ about), NO_VARIANCE)
    by_prime = {int(p): float(each[found.lines.prime == p].sum()) for p in np.unique(found.lines.prime)}
    return Shares(share_of_variance(series, found.mean + waves.sum(axis=1)), by_prime)


def _design(at: Places, lines: Lines, block: slice) -> Array:
    """(targets, 2 lines + 1): cosines, sines and 1 at the zeros of a block."""
    phase = at.times[block, None] * lines.omega
    return np.concatenate([np.cos(phase), np.sin(phase), np.ones((len(phase), 1))], axis=1)


def _complex(sums: Array) -> NDArray[np.complex128]:
    """Sums of cosines and sines as sums of exp(-i w t)."""
    half = (sums.shape[-1] - 1) // 2
    joined: NDArray[np.complex128] = sums[..., :half] - 1j * sums[..., half:-1]
    return joined


def _noise(series: Array, at: Places, lines: Lines, coef: Array) -> NDArray[np.complex128]:
    """(draws, lines): by how much sums of the series times exp(-i w t) would move by what no line holds of it."""
    scores = []
    for block in blocks(len(series)):
        design = _design(at, lines, block)
        scores.append(design.T @ (series[block] - design @ coef))
    return _complex(drawn(np.stack(scores)))


def _line(value: complex, draws: NDArray[np.complex128]) -> Line:
    size, angle = abs(value), -math.degrees(math.atan2(value.imag, value.real))
    turned = draws * (np.conj(value) / max(size, 1e-300))
    amplitude = percentiles(size, turned.real)
    phase = percentiles(angle, angle - np.degrees(np.angle(turned)))
    if amplitude.low <= 0.0 or phase.half_width >= _TURN / 2.0:
        phase = Interval(angle, math.nan, math.nan)
    return Line(amplitude, phase)
