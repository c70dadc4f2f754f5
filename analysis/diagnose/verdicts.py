"""From an estimate and a threshold to a verdict, the same in every diagnostic, which names its own thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from analysis.diagnose.api import NoEvidence, Verdict
from analysis.stats.interval import Interval
from trainables.arrays import Array


def verdict(estimate: Interval, passes: Callable[[float], bool]) -> Verdict:
    """``pass`` or ``fail`` by the value; ``warn`` where one of its bounds is on the other side of the threshold.

    A value that is not finite gives ``no_evidence``; bounds that are not finite (too few windows) are not looked at.
    """
    if not math.isfinite(estimate.value):
        return "no_evidence"
    good = passes(estimate.value)
    bounds = [bound for bound in (estimate.low, estimate.high) if math.isfinite(bound)]
    if any(passes(bound) != good for bound in bounds):
        return "warn"
    return "pass" if good else "fail"


def require_finite(otherwise: str, *arrays: Array) -> None:
    """Raise `NoEvidence`, which says ``otherwise``, unless all is finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise NoEvidence(otherwise)


def shown(estimate: Interval, digits: int = 3) -> str:
    """A value with its interval, where it has one, for a summary: ``0.021 (0.018 to 0.024)``, and never -0.000."""
    value, low, high = (
        f"{round(number, digits) + 0.0:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return value if "nan" in (low, high) else f"{value} ({low} to {high})"
