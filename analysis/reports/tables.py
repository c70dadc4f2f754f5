"""Plain output of reports: numbers with the digits they have, Markdown tables, CSV, JSON, files written whole.

A report can be made again from its run, so a rename is enough and nothing is fsynced.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.escape import csv_cell, printable
from analysis.stats.interval import Interval
from trainables.files import write_atomic

NONE = "–"
"""Stands where there is no number."""

_MAX_DECIMALS = 12
_SYNTAX = re.compile(r"[\\`*~\[\]|]|<(?=[A-Za-z/!?])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def decimals(scale: float) -> int:
    """Decimals that show ``scale`` (a standard deviation, half an interval) with two digits; 3 if it is none."""
    if not math.isfinite(scale) or scale == 0.0:
        return 3
    return min(_MAX_DECIMALS, max(0, 1 - math.floor(math.log10(abs(scale)))))


def number(value: float | None, places: int, *, signed: bool = False) -> str:
    """The value with so many decimals; a dash for None and NaN, never a negative zero."""
    if value is None or math.isnan(value):
        return NONE
    rounded = round(value, places) + 0.0
    return f"{rounded:+.{places}f}" if signed else f"{rounded:.{places}f}"


def with_unit(text: str, unit: str) -> str:
    """``0.031 nats``, or the text alone where there is no unit."""
    return f"{text} {unit}" if unit else text


def ends(interval: Interval, places: int) -> str:
    """``0.012 to 0.050``, or ``none`` without an interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return "none"
    return f"{number(interval.low, places)} to {number(interval.high, places)}"


def mean_std(mean: float, std: float, places: int) -> str:
    """``1.234 ± 0.010``, without what is NaN."""
    text = number(mean, places)
    return text if math.isnan(mean) or math.isnan(std) else f"{text} ± {number(std, places)}"


def counted(num: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``, ``no seeds``."""
    return f"{num if num else 'no'} {noun}{'' if num == 1 else 's'}"


def listed(words: Iterable[object]) -> str:
    """``a``, ``a and b``, ``a, b and c``; ``none`` for nothing."""
    *first, last = list(map(str, words)) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def duration(seconds: float) -> str:
    """``42 s``, ``3.4 min``, ``2.1 h``."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.1f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"


def code(value: object) -> str:
    """Inline code of Markdown, on one line; strings as they are, other values as Python writes them."""
    text = printable(" ".join((value if isinstance(value, str) else repr(value)).split()))
    if not text:
        return '`""`'
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def escaped(text: str) -> str:
    """A name or sentence on one line that Markdown shows as it is; underscores inside a word need nothing."""
    return _SYNTAX.sub(r"\\\g<0>", printable(" ".join(text.split())))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> list[str]:
    """Lines of a table; the first ``text_columns`` are aligned left, the others right. Bars in cells are escaped."""
    rule = ["---" if i < text_columns else "---:" for i in range(len(header))]
    lines = [header, rule, *rows]
    return [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.replace("\\|", "|").replace("|", "\\|").split())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of a report, which can be made again from its run: whole, but without waiting for the disk."""
    write_atomic(path, content, durable=False)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, UTF-8; a byte of a path that is no text is written as an escape."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Full precision; empty where there is no number."""
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(map(csv_cell, header))
    writer.writerows([_blank(cell) for cell in row] for row in rows)
    write_text(path, body.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strict JSON: NaN and infinities are null, what JSON does not know is written as text."""
    write_text(path, json.dumps(_strict(content), indent=1, allow_nan=False, default=str) + "\n")


def _blank(cell: object) -> object:
    return "" if cell is None or (isinstance(cell, float) and not math.isfinite(cell)) else csv_cell(cell)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
