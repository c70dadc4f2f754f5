"""Student's t and the derivatives of log Gamma at scalars, for real degrees of freedom, by `scipy.special`.

Not `scipy.stats`, whose checks of arguments cost fifty times as much a call. The import is inside the functions because
the policy, the command line's help and the checks of a plan import this module, and most runs never need it.
"""

from __future__ import annotations

import math
from functools import lru_cache


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) for Student's t with any positive real degrees of freedom, or inf (the normal); NaN for t = NaN."""
    from scipy.special import stdtr

    if _positive("df", df) == 1.0:  # Cauchy's: stdtr is off by 2e-9 in its tails
        return math.atan2(1.0, -t) / math.pi
    return float(stdtr(df, t))


@lru_cache(maxsize=1024)
def t_quantile(p: float, df: float) -> float:
    """The t with t_cdf(t, df) = p; -inf and +inf at 0 and 1. Raises ValueError for p outside [0, 1]."""
    from scipy.special import stdtrit

    _positive("df", df)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p={p!r} is not a probability; it takes 0 to 1")
    return -math.inf if p == 0.0 else float(stdtrit(df, p))


@lru_cache(maxsize=1024)
def digamma(x: float) -> float:
    """Psi(x) for x > 0."""
    from scipy.special import psi

    return float(psi(_positive("x", x)))


@lru_cache(maxsize=1024)
def trigamma(x: float) -> float:
    """Psi'(x) for x > 0."""
    from scipy.special import zeta

    return float(zeta(2.0, _positive("x", x)))  # what polygamma(1, x) computes, without its arrays


def inverse_trigamma(y: float) -> float:
    """The x with trigamma(x) = y, for y > 0; +inf at 0. Smyth 2004, appendix: Newton on 1 / trigamma, from the left."""
    from scipy.special import zeta

    if y == 0.0:
        return math.inf
    _positive("y", y)
    if y > 1e7:
        return 1.0 / math.sqrt(y - math.pi**2 / 6.0)
    if y < 1e-6:
        return 1.0 / y + 0.5
    x = 0.5 + 1.0 / y
    while True:
        value = float(zeta(2.0, x))
        step = value * (value / y - 1.0) / (2.0 * float(zeta(3.0, x)))
        x += step
        if abs(step) <= 1e-12 * x:
            return x


def _positive(name: str, value: float) -> float:
    if not value > 0.0:
        raise ValueError(f"{name}={value!r} is not positive")
    return value
