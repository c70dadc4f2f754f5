"""Student's t and the derivatives of log Gamma: standard library only, for code that must load neither numpy nor scipy.

What it is: the five functions that moderated variances and claims need, for real degrees of freedom, checked against
scipy to 1e-10. What it is not: a library of distributions.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_NEARLY_NORMAL = 1e6  # degrees of freedom from which two terms of the expansion in 1/df are exact to rounding


def digamma(x: float) -> float:
    """Psi(x) for x > 0: recurrence up to x >= 10, then the asymptotic series (Abramowitz & Stegun 6.3.18).

    Raises:
        ValueError: x is not positive.
    """
    total, x = 0.0, _positive("x", x)
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * 691 / 32760)))))
    return total + math.log(x) - 0.5 / x - series


def trigamma(x: float) -> float:
    """Psi'(x) for x > 0, as `digamma` (Abramowitz & Stegun 6.4.12).

    Raises:
        ValueError: x is not positive.
    """
    total, x = 0.0, _positive("x", x)
    while x < 10.0:
        total += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 6 - r * (1 / 30 - r * (1 / 42 - r * (1 / 30 - r * (5 / 66 - r * 691 / 2730)))))
    return total + 1.0 / x + 0.5 * r + series / x


def _tetragamma(x: float) -> float:
    """Psi''(x), x > 0 (Abramowitz & Stegun 6.4.13)."""
    total = 0.0
    while x < 10.0:
        total -= 2.0 / x**3
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 2 - r * (1 / 6 - r * (1 / 6 - r * (3 / 10 - r * (5 / 6 - r * 691 / 210)))))
    return total - r - r / x - r * series


def inverse_trigamma(y: float) -> float:
    """The x with trigamma(x) = y, for y > 0; +inf at 0 (Smyth 2004, appendix: Newton on 1 / trigamma, from the left).

    Raises:
        ValueError: y is negative or NaN.
    """
    if y == 0.0:
        return math.inf
    _positive("y", y)
    if y > 1e7:
        return 1.0 / math.sqrt(y - math.pi**2 / 6.0)
    if y < 1e-6:
        return 1.0 / y + 0.5
    x = 0.5 + 1.0 / y
    while True:
        value = trigamma(x)
        step = value * (1.0 - value / y) / _tetragamma(x)
        x += step
        if abs(step) <= 1e-12 * x:
            return x


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) for Student's t.

    Args:
        t: any real or infinite; NaN gives NaN.
        df: degrees of freedom, any positive real or inf (the normal).

    Raises:
        ValueError: df is not positive.
    """
    _positive("df", df)
    if math.isnan(t):
        return math.nan
    tail = _t_tail(abs(t), df)
    return tail if t < 0.0 else 1.0 - tail


@lru_cache(maxsize=1024)
def t_quantile(p: float, df: float) -> float:
    """The t with t_cdf(t, df) = p; -inf and +inf at 0 and 1. Relative error below 1e-9.

    Raises:
        ValueError: p is outside [0, 1], or df is not positive.
    """
    _positive("df", df)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p={p!r} is not a probability; it takes 0 to 1")
    if p > 0.5:
        return -t_quantile(1.0 - p, df)
    if p in (0.0, 0.5):
        return -math.inf if p == 0.0 else 0.0
    # The tail is convex and heavier than the normal's, so Newton from the normal quantile climbs without overshooting.
    t = -_NORMAL.inv_cdf(p)
    if math.isinf(df):
        return -t
    while True:
        step = (_t_tail(t, df) - p) / _t_density(t, df)
        t += step
        if step <= 1e-12 * t:
            return -t


def _t_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0; 0 beyond 1e154, where t squared overflows."""
    if df >= _NEARLY_NORMAL:
        normal = 0.5 * math.erfc(t / math.sqrt(2.0))
        if normal == 0.0 or math.isinf(df):
            return normal
        t2 = t * t  # Abramowitz & Stegun 26.7.10, inverted to tails
        terms = (t2 + 1.0) / (4.0 * df) + (((3.0 * t2 - 7.0) * t2 - 5.0) * t2 - 3.0) / (96.0 * df * df)
        return normal + t * math.exp(-0.5 * t2) / math.sqrt(2.0 * math.pi) * terms
    ratio = t * t / df
    if ratio == 0.0 or math.isinf(ratio):
        return 0.5 if ratio == 0.0 else 0.0
    a, x, y = 0.5 * df, 1.0 / (1.0 + ratio), ratio / (1.0 + ratio)
    front = math.exp(-a * math.log1p(ratio) + 0.5 * math.log(y)) * _inverse_beta_half(a)
    if x < (a + 1.0) / (a + 2.5):
        return 0.5 * front * _beta_fraction(a, 0.5, x) / a
    return 0.5 - front * _beta_fraction(0.5, a, y)


def _t_density(t: float, df: float) -> float:
    a = 0.5 * df
    return _inverse_beta_half(a) / math.sqrt(df) * math.exp(-(a + 0.5) * math.log1p(t * t / df))


def _inverse_beta_half(a: float) -> float:
    """1 / B(a, 1/2)."""
    if a < 100.0:
        return math.exp(math.lgamma(a + 0.5) - math.lgamma(a)) / math.sqrt(math.pi)
    # The difference of two large logarithms loses digits; the series of Gamma(a + 1/2) / Gamma(a) does not.
    r = 1.0 / a
    series = 1.0 + r * (-1 / 8 + r * (1 / 128 + r * (5 / 1024 + r * (-21 / 32768 - r * 399 / 262144))))
    return math.sqrt(a / math.pi) * series


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (Numerical Recipes, section 6.4)."""
    d = 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    c, result, m = 1.0, d, 0
    while True:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        result *= d * c
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        result *= d * c
        if abs(d * c - 1.0) <= 4e-16:
            return result


def _positive(name: str, value: float) -> float:
    if not value > 0.0:
        raise ValueError(f"{name}={value!r} is not positive")
    return value
