"""Findings as strict JSON and back: what stands in ``members/<id>/findings.json`` and ``report/findings.json``.

NaN is null, infinities are the strings that the journal has for them. Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.diagnose.api import Estimate, Finding, Plot, Series

SCHEMA = 1
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}


def to_json(findings: Iterable[Finding], seconds: Mapping[str, float] | None = None) -> str:
    """The findings as a text.

    Args:
        findings: in the order of the report.
        seconds: how long each diagnostic took, by its name; kept beside the findings, for readers.
    """
    rows = [
        {
            "name": f.name,
            "verdict": f.verdict,
            "summary": f.summary,
            "values": {name: _value_out(value) for name, value in f.values.items()},
            "threshold": {name: _out(value) for name, value in f.threshold.items()},
            "plots": [_plot_out(plot) for plot in f.plots],
        }
        for f in findings
    ]
    took = {name: _out(value) for name, value in (seconds or {}).items()}
    return json.dumps({"schema": SCHEMA, "findings": rows, "seconds": took}, indent=1, allow_nan=False)


def from_json(text: str) -> list[Finding]:
    """The inverse of `to_json`; sequences come back as tuples.

    Raises:
        ValueError: it is not what `to_json` of this version writes.
    """
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}; this version reads {SCHEMA}")
        return [
            Finding(
                name=row["name"],
                verdict=row["verdict"],
                summary=row["summary"],
                values={name: _value_in(value) for name, value in row["values"].items()},
                threshold={name: _in(value) for name, value in row["threshold"].items()},
                plots=tuple(_plot_in(plot) for plot in row["plots"]),
            )
            for row in content["findings"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not findings of this version ({type(error).__name__}: {error})") from error


def _out(value: float) -> float | str | None:
    number = float(value)
    if math.isnan(number):
        return None
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def _in(value: Any) -> float:
    return math.nan if value is None else float(_INFINITE.get(value, value))


def _value_out(value: Estimate | float) -> Any:
    if isinstance(value, Estimate):
        return {"value": _out(value.value), "low": _out(value.low), "high": _out(value.high)}
    return _out(value)


def _value_in(value: Any) -> Estimate | float:
    if isinstance(value, dict):
        return Estimate(_in(value["value"]), _in(value["low"]), _in(value["high"]))
    return _in(value)


def _list_out(values: Sequence[float]) -> list[float | str | None]:
    return [_out(value) for value in values]


def _list_in(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(_in(value) for value in values)


def _plot_out(plot: Plot) -> dict[str, Any]:
    return {
        "title": plot.title,
        "x_label": plot.x_label,
        "y_label": plot.y_label,
        "kind": plot.kind,
        "series": [
            {"label": s.label, **{name: _list_out(getattr(s, name)) for name in ("x", "y", "low", "high")}}
            for s in plot.series
        ],
        "grid": [_list_out(row) for row in plot.grid],
        "lines": {label: _out(y) for label, y in plot.lines.items()},
        "x_ticks": list(plot.x_ticks),
        "log_x": plot.log_x,
        "log_y": plot.log_y,
    }


def _plot_in(row: Mapping[str, Any]) -> Plot:
    series = tuple(
        Series(s["label"], **{name: _list_in(s[name]) for name in ("x", "y", "low", "high")}) for s in row["series"]
    )
    return Plot(
        title=row["title"],
        x_label=row["x_label"],
        y_label=row["y_label"],
        kind=row["kind"],
        series=series,
        grid=tuple(_list_in(line) for line in row["grid"]),
        lines={label: _in(y) for label, y in row["lines"].items()},
        x_ticks=tuple(row["x_ticks"]),
        log_x=row["log_x"],
        log_y=row["log_y"],
    )
