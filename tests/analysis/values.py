"""Values of a finding, by name."""

from __future__ import annotations

from analysis.diagnose.api import Finding
from analysis.stats.interval import Interval


def estimate(finding: Finding, name: str) -> Interval:
    """A value that has an interval."""
    found = finding.values[name]
    assert isinstance(found, Interval)
    return found


def number(finding: Finding, name: str) -> float:
    """A value that has none."""
    found = finding.values[name]
    assert isinstance(found, float)
    return found


def value(finding: Finding, name: str) -> float:
    """A value without its interval, if it has one."""
    found = finding.values[name]
    return found.value if isinstance(found, Interval) else found
