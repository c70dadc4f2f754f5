"""What a diagnostic is: a question about a model or a run, and the finding that answers it. Standard library only.

A diagnostic is one file in ``analysis/<family>/`` and one line in `analysis.registry`. It returns evidence and never
raises on poor input: a run that is empty, has one member or lost all of them gives ``no_evidence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from analysis.stats.interval import Interval as Estimate

__all__ = ["Diagnostic", "Estimate", "Finding", "Plot", "Series", "Verdict"]

Verdict = Literal["pass", "warn", "fail", "no_evidence"]


@dataclass(frozen=True)
class Series:
    """One line, set of bars or set of points of a plot; ``low`` and ``high`` draw a band or error bars."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """A figure as data; `analysis.reports.plots` draws it.

    Attributes:
        title, x_label, y_label: words, with units.
        kind: how the series are drawn; ``heat`` draws ``grid`` (rows of equal length) instead.
        grid: for ``heat``.
        lines: horizontal lines to compare with, label -> y (thresholds).
        x_ticks: names of the places 0, 1, 2 ... of x, where they have names.
        log_x, log_y: logarithmic axes.
    """

    title: str
    x_label: str
    y_label: str
    kind: Literal["line", "bar", "points", "heat"] = "line"
    series: tuple[Series, ...] = ()
    grid: Sequence[Sequence[float]] = ()
    lines: Mapping[str, float] = field(default_factory=dict)
    x_ticks: Sequence[str] = ()
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Finding:
    """What a diagnostic found.

    Attributes:
        name: the diagnostic's.
        verdict: ``warn`` where the interval reaches the threshold; ``no_evidence`` with nothing to judge from.
        summary: what it means, in a sentence for somebody who does not know the diagnostic.
        values: what was measured, by name, with units in the name or the diagnostic's docstring. Intervals are at 95%,
            by a bootstrap over golden windows unless the summary says otherwise.
        threshold: what ``values`` were held against, by the name of the value; empty where a value is only reported.
        plots: pictures of it.
    """

    name: str
    verdict: Verdict
    summary: str
    values: Mapping[str, Estimate | float] = field(default_factory=dict)
    threshold: Mapping[str, float] = field(default_factory=dict)
    plots: tuple[Plot, ...] = ()


class Diagnostic(Protocol):
    """A question, and how it is answered.

    Attributes:
        name: as plans and the command line spell it (``permutation``).
        title: for reports ("J: permutation sanity").
        families: which it is for; empty: all.
        needs: ``checkpoint``: called with a `Subject`; ``records``: called with a run's records.
    """

    name: str
    title: str
    families: tuple[str, ...]
    needs: Literal["records", "checkpoint"]

    def __call__(self, subject: Any) -> Finding:
        """Answer it for one subject."""
        ...
