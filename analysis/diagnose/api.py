"""What a diagnostic is: a question about a model or a run, and the finding that answers it; and what a baseline is.

A diagnostic is one file of its family, and one name in the family's list. It returns evidence and never raises on poor
input: a run that is empty, has one member or lost all of them gives ``no_evidence``. Standard library only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, overload

from analysis.stats.interval import Interval
from trainables.api import Split
from trainables.knowledge import Knowledge
from trainables.registry import resolve

Needs = Literal["checkpoint", "records"]
"""What a diagnostic is called with: an `analysis.diagnose.subject.Subject`, or an `analysis.view.Run`."""
Verdict = Literal["pass", "warn", "fail", "no_evidence"]
_Number = int | float
"""Named in full, so that findings that are read again have the integers that were written."""
Value = Interval | _Number
"""What was measured, with its interval where it has one."""


@dataclass(frozen=True)
class Series:
    """One line, set of bars or set of points of a plot; ``low`` and ``high`` draw a band or error bars."""

    label: str
    x: Sequence[_Number]
    y: Sequence[_Number]
    low: Sequence[_Number] = ()
    high: Sequence[_Number] = ()

    @classmethod
    def of(cls, label: str, estimates: Sequence[Interval], x: Sequence[float] | None = None) -> Series:
        """Estimates with their intervals, at 0, 1, 2 ... unless ``x`` says where."""
        places = range(len(estimates)) if x is None else x
        return cls(label, tuple(places), *(tuple(e[side] for e in estimates) for side in range(3)))


@dataclass(frozen=True)
class Plot:
    """A figure as data; `analysis.reports.plots` draws it.

    Attributes:
        title, x_label, y_label: words, with units.
        kind: how the series are drawn; ``heat`` draws ``grid`` (rows of equal length) instead.
        lines: horizontal lines to compare with, label -> y (thresholds).
        x_ticks: names of the places 0, 1, 2 ... of x, where they have names.
    """

    title: str
    x_label: str
    y_label: str
    kind: Literal["line", "bar", "points", "heat"] = "line"
    series: tuple[Series, ...] = ()
    grid: Sequence[Sequence[_Number]] = ()
    lines: Mapping[str, _Number] = field(default_factory=dict)
    x_ticks: Sequence[str] = ()
    log_x: bool = False
    log_y: bool = False

    @classmethod
    def bars(
        cls, title: str, x_label: str, y_label: str, *series: Series, lines: Mapping[str, float] | None = None
    ) -> Plot:
        """Bars at 0, 1, 2 ..., called by these numbers."""
        ticks = tuple(str(place) for place in range(len(series[0].x)))
        return cls(title, x_label, y_label, "bar", series, lines=lines or {}, x_ticks=ticks)

    @classmethod
    def table(cls, title: str, x_label: str, y_label: str, grid: Sequence[Sequence[float]]) -> Plot:
        """A heat map whose columns are called 0, 1, 2 ..."""
        ticks = tuple(str(column) for column in range(len(grid[0])))
        return cls(title, x_label, y_label, "heat", grid=grid, x_ticks=ticks)


@dataclass(frozen=True)
class Finding:
    """What a diagnostic found.

    Attributes:
        name: the diagnostic's.
        verdict: ``warn`` where the interval reaches the threshold; ``no_evidence`` with nothing to judge from.
        summary: what it means, in a sentence for a reader who does not know the diagnostic.
        values: what was measured, by name, with units in the name or the diagnostic's docstring. Intervals are at 95%,
            by a bootstrap over the sample unless the summary says otherwise.
        threshold: what ``values`` were held against, by the name of the value; empty where a value is only reported.
    """

    name: str
    verdict: Verdict
    summary: str
    values: Mapping[str, Value] = field(default_factory=dict)
    threshold: Mapping[str, _Number] = field(default_factory=dict)
    plots: tuple[Plot, ...] = ()


class Diagnostic(Protocol):
    """A question, and how it is answered; `diagnostic` makes one of a function. The title is for reports."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Needs: ...

    @property
    def title(self) -> str: ...

    def __call__(self, subject: Any) -> Finding:
        """Answer it for one subject."""
        ...


_Answer = Callable[[Any], Finding | bool]


class NoEvidence(Exception):
    """Raised in a diagnostic that has nothing to judge from: its text is the summary of the finding."""


@dataclass(frozen=True)
class _Question:
    """A function as a diagnostic; see `diagnostic`."""

    name: str
    title: str
    needs: Needs
    answer: _Answer

    def __call__(self, subject: Any) -> Finding:
        try:
            found = self.answer(subject)
        except NoEvidence as nothing:
            return Finding(self.name, "no_evidence", str(nothing))
        if isinstance(found, bool):
            return Finding(self.name, "pass" if found else "fail", self.title)
        if not isinstance(found, Finding):
            raise TypeError(
                f"diagnostic {self.name}: returns a {type(found).__name__}: allowed are a bool and an answer"
            )
        return replace(found, name=self.name)


@overload
def diagnostic(title: _Answer, /) -> Diagnostic: ...


@overload
def diagnostic(title: str = "", *, needs: Needs = "checkpoint", name: str = "") -> Callable[[_Answer], Diagnostic]: ...


def diagnostic(title: str | _Answer = "", *, needs: Needs = "checkpoint", name: str = "") -> Any:
    """Make a diagnostic of a function that returns an `answer`, or whether all is well, or raises `NoEvidence`.

    Args:
        title: for reports (empty: the first line of the function's docstring); the function itself, without any.
        needs: what the function is called with.
        name: of the diagnostic (empty: the function's).
    """
    if callable(title):
        return diagnostic()(title)

    def made(function: _Answer) -> Diagnostic:
        called = name or function.__name__
        return _Question(called, title or _first_line(function) or called.replace("_", " "), needs, function)

    return made


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0].rstrip(".")


def answer(
    verdict: Verdict,
    summary: str,
    values: Mapping[str, Value] | None = None,
    threshold: Mapping[str, float] | None = None,
    plots: tuple[Plot, ...] = (),
) -> Finding:
    """The finding of a function that `diagnostic` decorates, which puts the name to it."""
    return Finding("", verdict, summary, values or {}, threshold or {}, plots)


@dataclass(frozen=True)
class Listed:
    """A diagnostic by its ``"module:attr"``, imported when it is first asked: a family's list of names stays light."""

    name: str
    needs: Needs
    reference: str

    @property
    def title(self) -> str:
        """The diagnostic's; imports it."""
        return self.load().title

    def load(self) -> Diagnostic:
        """The diagnostic itself."""
        diagnostic: Diagnostic = resolve(self.reference)
        return diagnostic

    def __call__(self, subject: Any) -> Finding:
        """Its finding; imports it."""
        return self.load()(subject)


def listed(package: str, *names: str, needs: Needs = "checkpoint") -> tuple[Listed, ...]:
    """The diagnostics of ``package`` that are called like their modules and like the functions in these."""
    return tuple(Listed(name, needs, f"{package}.{name}:{name}") for name in names)


@dataclass(frozen=True)
class Baseline:
    """What a win has to beat: a predictor, its score by the family's objective, and how it was fitted and scored.

    ``knowledge`` is what it knows, where models of its family do not all know the same.
    """

    name: str
    value: float
    note: str
    knowledge: Knowledge | None = None


class Baselines(Protocol):
    """``Family.baselines``: measures predictors that a model has to beat."""

    def __call__(
        self, dataset: str, data_dir: Path, *, split: Split = "test", config: Mapping[str, Any] | None = None
    ) -> Sequence[Baseline]:
        """Score every baseline on one split of a data set; raises `DataError` if that is unknown, missing or corrupt.

        Args:
            dataset: one of the family's.
            data_dir: root of all data.
            split: what is scored; fits see only what lies before it.
            config: of a model whose targets are to be scored, where those depend on the config; None: all targets.
        """
        ...


def baseline(function: Callable[..., float]) -> Baselines:
    """Make `Baselines` of a function that returns its score by the objective: one, called as the function is.

    The function is called by keyword with those of ``data_dir``, ``split``, ``dataset`` and ``config`` that it names.
    """
    return _Measured(function)


@dataclass(frozen=True)
class _Measured:
    function: Callable[..., float]

    def __call__(
        self, dataset: str, data_dir: Path, *, split: Split = "test", config: Mapping[str, Any] | None = None
    ) -> Sequence[Baseline]:
        offered = {"dataset": dataset, "data_dir": data_dir, "split": split, "config": config}
        asked = inspect.signature(self.function).parameters
        name = self.function.__name__
        value = self.function(**{key: offered[key] for key in asked if key in offered})
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"baseline {name}: returns a {type(value).__name__}: allowed is a number")
        return (Baseline(name.replace("_", " "), float(value), _first_line(self.function)),)
