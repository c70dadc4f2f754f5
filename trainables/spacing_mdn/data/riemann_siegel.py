"""Zeros of the Riemann zeta function from number 1,001 up to a height of 1.5 million, in bulk, by Riemann-Siegel.

What it is: a numpy solver for many consecutive zeros at once. What it is not: a proof (completeness rests on Rosser's
rule, true for the first 13,999,525 Gram points, and `zeros` checks counts against certified ones), nor a solver for a
single zero or a low one: `flint.acb.zeta_zero` is that.

How it goes.

1. Heights are cut into cells of width 8 centred at multiples of 8. Over a cell the main sum is
   sum_n n^(-1/2) exp(i (theta(c) - c ln n)) exp(i (theta(c + d) - theta(c) - d ln n)): its second factor is the same
   for all cells but for theta, so the values at the Chebyshev nodes of all cells are one matrix product.
2. theta(c) - c ln n is millions of radians and has to be right to 1e-12. c is an integer and ln n / 2 pi is kept as a
   multiple of 2^-32 and a rest, so that the first product is exact in float64 and its whole turns drop out.
3. Z is entire, so each cell becomes a Chebyshev series (60 terms carry its highest frequency, ln(t/2 pi)/2 < 6.2, over
   a half-width of 4 with an error under 1e-14), and every later evaluation costs the same at any height.
4. Between good Gram points (Gram blocks) each block is sampled finer until it shows as many sign changes as it has
   Gram intervals; then all brackets are polished together.

Sources: H. M. Edwards, Riemann's Zeta Function (1974), chapter 7 (the formula, C0..C4) and section 8.4 (Gram blocks);
W. Gabcke, dissertation, Goettingen (1979): after C4 the error is below 0.017 t^(-11/4), 4e-11 at t = 1400;
J. B. Rosser, J. M. Yohe and L. Schoenfeld (1969) for the rule, R. P. Brent, Math. Comp. 33 (1979) for its range;
T. R. Chandrupatla, Adv. Eng. Software 28 (1997) for the polish.
"""

from __future__ import annotations

import functools
import math

import flint
import numpy as np
from numpy.typing import NDArray

from trainables.arrays import Array

_Index = NDArray[np.int64]

FIRST_ZERO = 1001
"""The lowest zero, counted from 1, for which the remainder is good to 1e-10."""
_MAX_HEIGHT = 1.5e6
"""Above it the product of a cell's centre and ln n / 2 pi would no longer be exact."""
_ROOT_TOLERANCE = 1e-12

_TWO_PI = 2.0 * math.pi
_CELL = 8.0
_NODES = 60
_TERMS = 56  # of the remainder's power series in p - 1/2; the last is below 1e-17 for |p - 1/2| <= 0.55
_GRAM_MARGIN = 24  # Gram points kept on each side to find a good one; bad runs are shorter than 10 in this range
_FINEST = 1 << 16  # subdivisions of a Gram interval before a block is called deficient


def solve(first: int, count: int) -> Array:
    """Ordinates of ``count`` consecutive zeros from number ``first`` (counted from 1), ascending.

    Within 5e-11 of the true ordinate, then rounded to float64 (half an ulp: 1.2e-10 at a height of a million). 20,000
    at a time keep the arrays in cache.

    Raises:
        ValueError: the range starts below `FIRST_ZERO` or ends above `_MAX_HEIGHT`.
        ArithmeticError: a Gram block does not hold its exact count: a bug, or heights where Rosser's rule fails.
    """
    if first < FIRST_ZERO or count < 1:
        raise ValueError(f"zeros {first}..{first + count - 1}: solve starts at zero {FIRST_ZERO} and takes at least 1")
    # By Gram's law zero m lies between Gram points m - 2 and m - 1; good ones further out close the block it is in.
    numbers = np.arange(first - 2 - _GRAM_MARGIN, first + count - 1 + _GRAM_MARGIN)
    gram = gram_points(numbers)
    if gram[-1] > _MAX_HEIGHT:
        raise ValueError(f"zero {first + count - 1} lies near {gram[-1]:.0f}, above the limit of {_MAX_HEIGHT:.0f}")
    z = ZSeries(float(gram[0]), float(gram[-1]))
    good = z(gram) * np.where(numbers % 2 == 0, 1.0, -1.0) > 0.0
    below = np.flatnonzero(good & (numbers <= first - 2))
    above = np.flatnonzero(good & (numbers >= first + count - 2))
    if not len(below) or not len(above):
        raise ArithmeticError(f"no good Gram point within {_GRAM_MARGIN} of zeros {first}..{first + count - 1}")
    inside = slice(below[-1], above[0] + 1)
    low, width = _brackets(z, gram[inside], good[inside])
    roots = np.sort(low + _polish(z, low, width))
    skip = first - 2 - int(numbers[below[-1]])
    return roots[skip : skip + count]


def theta(t: Array) -> Array:
    """Riemann-Siegel theta by Stirling's series; absolute error 1e-16 times its size, and 1e-12 more for t >= 100."""
    result: Array = 0.5 * t * np.log(t / _TWO_PI) - 0.5 * t - math.pi / 8 + _stirling_tail(t)
    return result


def gram_points(numbers: _Index) -> Array:
    """Gram points g_n with theta(g_n) = n pi, good to a few ulp, for integers n >= 20."""
    level = np.log((numbers + 0.125) / math.e)
    points: Array = _TWO_PI * np.exp(1.0 + level - np.log(level))
    for _ in range(6):  # Newton on a convex function; the start is within 40%
        points = points - (theta(points) - numbers * math.pi) / (0.5 * np.log(points / _TWO_PI))
    return points


class ZSeries:
    """Z(t) from height ``low`` (at least 1000) to ``high``, as one Chebyshev series for each cell of width 8."""

    def __init__(self, low: float, high: float) -> None:
        self._first = round(low / _CELL)
        centres: Array = _CELL * np.arange(self._first, round(high / _CELL) + 1, dtype=np.float64)
        # (nodes, cells): a term's coefficients of all cells lie together, as `__call__` gathers them.
        self._coef: Array = np.ascontiguousarray(np.matmul(_node_to_series(), _z_at_nodes(centres).T))

    def __call__(self, base: Array, offset: Array | None = None) -> Array:
        """Z(base + offset); the two are kept apart so that a small offset loses no digits to a large height."""
        height = base if offset is None else base + offset
        cell = np.rint(height / _CELL).astype(np.int64)
        x = base - _CELL * cell
        if offset is not None:
            x += offset
        x *= 2.0 / _CELL
        np.clip(cell - self._first, 0, self._coef.shape[1] - 1, out=cell)
        twice = 2.0 * x
        one, two = np.zeros_like(x), np.zeros_like(x)
        for term in self._coef[:0:-1]:  # Clenshaw's recurrence
            np.subtract(term.take(cell), two, out=two)
            two += twice * one
            one, two = two, one
        result: Array = self._coef[0].take(cell) + x * one - two
        return result


def _nodes() -> Array:
    """Chebyshev nodes of the first kind on [-1, 1]."""
    nodes: Array = np.cos(math.pi * (np.arange(_NODES) + 0.5) / _NODES)
    return nodes


def _node_to_series() -> Array:
    """(_NODES, _NODES): takes values at the nodes to Chebyshev coefficients."""
    angle = math.pi * (np.arange(_NODES) + 0.5) / _NODES
    table: Array = (2.0 / _NODES) * np.cos(np.outer(np.arange(_NODES), angle))
    table[0] *= 0.5
    return table


def _z_at_nodes(centres: Array) -> Array:
    """(cells, _NODES): Z at the Chebyshev nodes of each cell.

    A cell keeps the number of terms of its centre throughout; the remainder continues past p = 0 and p = 1, so the
    values stay one smooth function.
    """
    shift = 0.5 * _CELL * _nodes()
    num_terms = np.floor(np.sqrt(centres / _TWO_PI)).astype(np.int64)
    n = np.arange(1, int(num_terms.max()) + 1)
    high, low = _log_turns(len(n))
    turns = _theta_turns(centres)[:, None] - np.outer(centres, high) % 1.0 - np.outer(centres, low)
    waves = np.where(n <= num_terms[:, None], 2.0 / np.sqrt(n), 0.0) * np.exp(2j * math.pi * turns)
    total = waves @ np.exp(-1j * np.outer(np.log(n), shift))
    total *= np.exp(1j * _theta_step(centres[:, None], shift))
    values: Array = total.real + _remainder(centres[:, None] + shift, num_terms[:, None])
    return values


@functools.lru_cache(maxsize=1)
def _all_log_turns() -> tuple[Array, Array]:
    count = math.isqrt(int(_MAX_HEIGHT / _TWO_PI)) + 1
    high, low = np.empty(count), np.empty(count)
    with flint.ctx.workprec(128):
        turn = 2 * flint.arb.pi()
        for n in range(1, count + 1):
            value = flint.arb(n).log() / turn
            high[n - 1] = round(float(value) * 2.0**32) / 2.0**32
            low[n - 1] = float(value - flint.arb(high[n - 1]))
    return high, low


def _log_turns(count: int) -> tuple[Array, Array]:
    """ln n / 2 pi for n = 1..count as a multiple of 2^-32 and what is left of it."""
    high, low = _all_log_turns()
    return high[:count], low[:count]


def _theta_turns(centres: Array) -> Array:
    """theta / 2 pi modulo 1 at heights of up to 7 digits, good to 1e-15."""
    with flint.ctx.workprec(96):
        turn, eighth = 2 * flint.arb.pi(), flint.arb(1) / 16
        turns = []
        for centre in centres.tolist():
            scaled = flint.arb(centre) / turn
            main = (scaled * (scaled.log() - 1)) / 2 - eighth
            turns.append(float(main - main.floor()))
    result: Array = np.array(turns) + _stirling_tail(centres) / _TWO_PI
    return result


def _theta_step(centre: Array, shift: Array) -> Array:
    """theta(centre + shift) - theta(centre), without the cancellation."""
    ratio = shift / centre
    bend = (1.0 + ratio) * np.log1p(ratio) - ratio
    step: Array = 0.5 * (shift * np.log(centre / _TWO_PI) + centre * bend)
    step += _stirling_tail(centre + shift) - _stirling_tail(centre)
    return step


def _stirling_tail(t: Array) -> Array:
    """What theta has beyond t/2 ln(t/2 pi) - t/2 - pi/8 (Edwards, section 6.5)."""
    return 1.0 / (48.0 * t) + 7.0 / (5760.0 * t**3)


@functools.lru_cache(maxsize=1)
def _correction_series() -> Array:
    """(5, _TERMS): power series of C0..C4 in x = p - 1/2.

    Psi(p) = cos(2 pi (p^2 - p - 1/16)) / cos(2 pi p) is -cos(2 pi x^2 - 5 pi / 8) / cos(2 pi x), and the C_k are
    combinations of its derivatives (Edwards, section 7.4).
    """
    derivatives = 12
    length = _TERMS + derivatives
    with flint.ctx.workprec(640):  # the quotient's series loses some 2 bits a term
        flint.ctx.cap, cap = length, flint.ctx.cap
        try:
            pi = flint.arb.pi()
            top = flint.arb_series([-5 * pi / 8, 0, 2 * pi], prec=length).cos()
            ratio = -top / flint.arb_series([0, 2 * pi], prec=length).cos()
            psi = np.array([float(value) for value in ratio.coeffs()])
        finally:
            flint.ctx.cap = cap
    psi = np.pad(psi, (0, length - len(psi)))

    def derived(order: int) -> Array:
        k = np.arange(_TERMS)
        factor = np.array([math.perm(int(i) + order, order) for i in k], dtype=np.float64)
        result: Array = psi[order : order + _TERMS] * factor
        return result

    p2, p4, p6, p8 = (math.pi**power for power in (2, 4, 6, 8))
    return np.stack(
        [
            derived(0),
            -derived(3) / (96 * p2),
            derived(2) / (64 * p2) + derived(6) / (18432 * p4),
            -derived(1) / (64 * p2) - derived(5) / (3840 * p4) - derived(9) / (5308416 * p6),
            derived(0) / (128 * p2)
            + 19 * derived(4) / (24576 * p4)
            + 11 * derived(8) / (5898240 * p6)
            + derived(12) / (2038431744 * p8),
        ]
    )


def _remainder(t: Array, num_terms: _Index) -> Array:
    """The Riemann-Siegel remainder with C0..C4 for a main sum of ``num_terms`` terms."""
    root = np.sqrt(t / _TWO_PI)
    x = root - num_terms - 0.5
    square = x * x
    total = np.zeros_like(t)
    for k, series in reversed(list(enumerate(_correction_series()))):
        parity = k % 2  # C_k is even in x for even k and odd for odd k
        value = np.zeros_like(t)
        for coefficient in series[parity::2][::-1]:
            value *= square
            value += coefficient
        total = total / root + (value * x if parity else value)
    return np.where(num_terms % 2 == 1, 1.0, -1.0) * total / np.sqrt(root)


def _brackets(z: ZSeries, gram: Array, good: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Left ends and widths of one bracket for each zero between the first and the last Gram point, both good."""
    block = np.cumsum(good)[:-1] - 1  # of each Gram interval
    expected = np.bincount(block)
    lows: list[Array] = []
    widths: list[Array] = []
    pending = np.arange(len(block))
    pieces = 1
    while len(pending):
        if pieces > _FINEST:
            where = gram[pending[0]]
            raise ArithmeticError(
                f"the Gram block near {where:.6f} shows fewer zeros than its length {_FINEST} times finer"
            )
        grid = np.linspace(gram[pending], gram[pending + 1], pieces + 1, axis=1)
        sign = np.signbit(z(grid.ravel())).reshape(grid.shape)
        change = sign[:, 1:] != sign[:, :-1]
        found = np.bincount(block[pending], weights=change.sum(axis=1), minlength=len(expected)).astype(np.int64)
        if (found > expected).any():
            where = gram[np.flatnonzero(block == np.argmax(found - expected))[0]]
            raise ArithmeticError(f"the Gram block at {where:.6f} shows more zeros than its length")
        full = (found == expected)[block[pending]]
        chosen = change & full[:, None]
        lows.append(grid[:, :-1][chosen])
        widths.append(np.diff(grid, axis=1)[chosen])
        pending = pending[~full]
        pieces *= 2
    return np.concatenate(lows), np.concatenate(widths)


def _polish(z: ZSeries, low: Array, width: Array) -> Array:
    """Distance of the root from ``low`` within each bracket, to `_ROOT_TOLERANCE`, by Chandrupatla's method."""
    root = np.empty_like(low)
    rows = np.arange(len(low))
    x1, x2 = width.copy(), np.zeros_like(width)
    f1, f2 = z(low, x1), z(low, x2)
    part = f1 / (f1 - f2)  # the first step is the secant's
    part = np.clip(part, 0.02, 0.98)
    while True:
        at = x1 + part * (x2 - x1)
        value = z(low[rows], at)
        same = np.signbit(value) == np.signbit(f1)
        x3, f3 = np.where(same, x1, x2), np.where(same, f1, f2)
        x2, f2 = np.where(same, x2, x1), np.where(same, f2, f1)
        x1, f1 = at, value
        best = np.where(np.abs(f1) < np.abs(f2), x1, x2)
        least = _ROOT_TOLERANCE / np.maximum(np.abs(x2 - x1), 1e-300)
        done = (least > 0.5) | (np.minimum(np.abs(f1), np.abs(f2)) == 0.0)
        root[rows[done]] = best[done]
        live = ~done
        if not live.any():
            return root
        rows, x1, x2, x3, f1, f2, f3, least = (v[live] for v in (rows, x1, x2, x3, f1, f2, f3, least))
        part = np.clip(_next_part(x1, x2, x3, f1, f2, f3), least, 1.0 - least)


def _next_part(x1: Array, x2: Array, x3: Array, f1: Array, f2: Array, f3: Array) -> Array:
    """Where between x1 and x2 to look next: inverse quadratic interpolation where it is safe, else the middle."""
    xi = (x1 - x2) / (x3 - x2)
    phi = (f1 - f2) / (f3 - f2)
    safe = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    return np.where(safe, inverse, 0.5)
