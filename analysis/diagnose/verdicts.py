"""From an estimate and a threshold to a verdict, the same in every diagnostic.

What it is not: thresholds, which each diagnostic names and puts into its finding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from analysis.diagnose.api import Verdict
from analysis.stats.interval import Interval


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


def shown(estimate: Interval, digits: int = 3) -> str:
    """A value with its interval, where it has one, for a summary: ``0.021 (0.018 to 0.024)``, and never -0.000."""
    value, low, high = (
        f"{round(number, digits) + 0.0:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return value if "nan" in (low, high) else f"{value} ({low} to {high})"
