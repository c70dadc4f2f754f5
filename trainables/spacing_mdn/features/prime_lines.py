"""The primes in the fluctuation of the zeros: S(t) as a sum of spectral lines, fitted in the past or with exact phases.

S(t) counts the zeros up to t beyond the smooth count. The explicit formula (H. M. Edwards, Riemann's Zeta Function,
1974, section 3.2) writes it as a sum over powers of primes, -sin(t k ln p) / (pi k p^(k/2)). Class II knows only the
frequencies k ln p, and fits a sine and a cosine at each to the zeros of the last window; class III takes the sum as it
is. `Residuals` is what is left of S at the zeros.

Positions count spacings: at position i the zeros 0 .. i + 1 of the series are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.arrays import Array
from trainables.spacing_mdn.features.options import LINE_LAGS

LAGS = LINE_LAGS
"""Zeros whose residuals are given, the latest first."""
Positions = NDArray[np.signedinteger[Any]]
_FLOATS = 1 << 22  # of normal equations that are held at once


@dataclass(frozen=True)
class Lines:
    """Spectral lines at powers of primes.

    Attributes:
        omega: (lines,) angular frequencies k ln p, per unit of height.
        amplitude: (lines,) of S at each, 1 / (pi k p^(k/2)).
        prime, power: (lines,) p and k.
    """

    omega: Array
    amplitude: Array
    prime: Array
    power: Array


def lines_up_to(bound: int) -> Lines:
    """The lines of all p^k up to ``bound``, by k, then by p; raises ValueError for a bound below 2."""
    if bound < 2:
        raise ValueError(f"prime_lines = {bound}: allowed is at least 2, the first prime")
    sieve = np.ones(bound + 1, dtype=bool)
    sieve[:2] = False
    for factor in range(2, math.isqrt(bound) + 1):
        sieve[factor * factor :: factor] = False
    primes = np.flatnonzero(sieve)
    pairs = [(p, k) for k in range(1, bound.bit_length()) for p in primes.tolist() if p**k <= bound]
    prime, power = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    return Lines(power * np.log(prime), 1.0 / (math.pi * power * prime ** (power / 2.0)), prime, power)


@dataclass(frozen=True)
class Run:
    """Consecutive positions that share coefficients: fits x refit_every of them.

    Attributes:
        first: the first position.
        cosine, sine: (fits, lines) coefficients of S_P(t) = sum A cos wt + B sin wt.
        residuals: (fits, LAGS + refit_every - 1) R at the zeros known at the positions, oldest first: the latest at the
            r-th position of a fit is column LAGS - 1 + r.
        before, after: (fits, refit_every) S_P at the latest zero of each position, and at the zero that follows.
        next_residual: (fits, refit_every) R at the zero that follows, which a target is made of and no feature.
    """

    first: int
    cosine: Array
    sine: Array
    residuals: Array
    before: Array
    after: Array
    next_residual: Array


def fitted(
    times: Array,
    counts: Array,
    lines: Lines,
    window: int,
    noise: float,
    refit_every: int,
    *,
    anchor: int = 0,
    positions: int | None = None,
) -> Iterator[Run]:
    """Fit the lines along a series, each time on the zeros of the last window.

    The fit is a ridge whose prior is the explicit formula's: (F'F + noise diag(2/a^2, 2/a^2, 0)) c = F'S with
    F = [cos wt, sin wt, 1], so that phases are free and a line that the window does not resolve stays small. It does
    not see where t = 0 is: a shift of all ``times`` turns phases and changes nothing else.

    Args:
        times: (n + 1,) heights of the zeros, up to a constant.
        counts: (n + 1,) S at the zeros, up to a constant.
        window: the longest past of any position, in spacings.
        noise: variance of S about its lines.
        refit_every, anchor: as in `online_ar.fit_online`.
        positions: how many to serve, from the first; None is all that the series has.

    Raises:
        ValueError: the window is too short, or the series is.
    """
    number = window - refit_every + 2  # zeros of a fit: the last position that it serves looks back on `window`
    if number < LAGS + 1:
        raise ValueError(f"prime_window = {window}: allowed is at least {LAGS + refit_every - 1}")
    start = first_position(window, refit_every, anchor, len(times) - 1)
    width = 2 * len(lines.omega) + 1
    prior = noise * np.concatenate([np.tile(2.0 / lines.amplitude**2, 2), [0.0]])
    end = len(times) - 1 if positions is None else min(start + positions, len(times) - 1)
    fits = np.arange(start, end, refit_every)
    batch = max(1, _FLOATS // width**2)
    for begin in range(0, len(fits), batch):
        yield _fit_some(times, counts, lines, fits[begin : begin + batch], number, prior, refit_every)


def first_position(window: int, every: int, anchor: int, number: int) -> int:
    """The first position of ``number`` spacings that has a whole window and equals ``anchor`` modulo ``every``."""
    start = window - 1
    start += (anchor - start) % every
    if start >= number:
        raise ValueError(f"prime_window = {window}: the series holds {number} spacings")
    return start


def _fit_some(
    times: Array, counts: Array, lines: Lines, fits: Positions, number: int, prior: Array, refit_every: int
) -> Run:
    """The fits on the ``number`` zeros known at each of ``fits``, and what they say of the positions they serve."""
    low, high = int(fits[0]) + 2 - number, min(int(fits[-1]) + refit_every + 2, len(times))
    # Relative to the first zero at hand, so that phases and counts are small; the constant takes the level up.
    origin, level = times[low], counts[low]
    phase = (times[low:high] - origin)[:, None] * lines.omega
    design = np.concatenate([np.cos(phase), np.sin(phase), np.ones((high - low, 1))], axis=1)
    values = counts[low:high] - level
    end = fits + 2 - low  # one past the last zero of each fit
    gram = _sliding(design, design, end, number, refit_every) + np.diag(prior)
    coef = np.linalg.solve(gram, _sliding(design, values[:, None], end, number, refit_every))[..., 0]
    # Zeros seen by the positions of each fit, and the next one; beyond the end the last is repeated, and cut by users.
    seen = np.minimum(end[:, None] - LAGS + np.arange(LAGS + refit_every), high - low - 1)
    about = design[seen]
    told = np.einsum("bij,bj->bi", about[..., :-1], coef[:, :-1])  # S_P
    left = values[seen] - told - coef[:, -1:]
    half = len(lines.omega)
    turn = origin * lines.omega  # back to phases about 0 of ``times``
    cosine, sine = coef[:, :half], coef[:, half:-1]
    return Run(
        int(fits[0]),
        cosine * np.cos(turn) - sine * np.sin(turn),
        cosine * np.sin(turn) + sine * np.cos(turn),
        left[:, :-1],
        told[:, LAGS - 1 : -1],
        told[:, LAGS:],
        left[:, LAGS:],
    )


def _sliding(left: Array, right: Array, end: Positions, number: int, refit_every: int) -> Array:
    """(fits, i, j): sums of left[t, i] right[t, j] over the ``number`` rows before each of ``end``, evenly apart."""
    sums = np.empty((len(end), left.shape[1], right.shape[1]))
    window = slice(int(end[0]) - number, int(end[0]))
    sums[0] = left[window].T @ right[window]
    if len(end) > 1:
        shape = (len(end) - 1, refit_every, -1)

        def steps(values: Array, begin: int) -> Array:
            return values[begin : begin + shape[0] * refit_every].reshape(shape)

        enter, leave = int(end[0]), int(end[0]) - number
        np.matmul(steps(left, enter).transpose(0, 2, 1), steps(right, enter), out=sums[1:])
        sums[1:] -= np.matmul(steps(left, leave).transpose(0, 2, 1), steps(right, leave))
        np.cumsum(sums, axis=0, out=sums)
    return sums


def exact(times: Array, counts: Array, lines: Lines, refit_every: int) -> Iterator[Run]:
    """As `fitted`, with the phases of the explicit formula: nothing is fitted, and ``times`` are ordinates.

    ``counts`` are S at the zeros in full, no constant left open.
    """
    half = len(lines.omega)
    batch = max(1, _FLOATS // (half * (LAGS + refit_every)))
    for begin in range(LAGS - 1, len(times) - 1, batch * refit_every):
        fits = np.arange(begin, min(begin + batch * refit_every, len(times) - 1), refit_every)
        low, high = begin + 2 - LAGS, min(int(fits[-1]) + refit_every + 2, len(times))
        told = -(np.sin(times[low:high, None] * lines.omega) @ lines.amplitude)
        left = counts[low:high] - told
        seen = np.minimum(fits[:, None] + 2 - LAGS - low + np.arange(LAGS + refit_every), high - low - 1)
        yield Run(
            begin,
            np.zeros((len(fits), half)),
            np.tile(-lines.amplitude, (len(fits), 1)),
            left[seen][:, :-1],
            told[seen][:, LAGS - 1 : -1],
            told[seen][:, LAGS:],
            left[seen][:, LAGS:],
        )
