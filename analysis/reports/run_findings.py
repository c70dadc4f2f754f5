"""Findings about a whole run: ``report/findings.json`` read, renewed, and laid out with a row a candidate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from analysis.diagnose.api import Finding, Value
from analysis.diagnose.findings import from_json, to_json
from analysis.reports.page.facts import Facts
from analysis.reports.page.tables import Cell, Table
from analysis.reports.tables import NONE, decimals, ends, number, write_text
from analysis.stats.interval import Interval

NO_BREAK = "\N{NO-BREAK SPACE}"

_LABEL = 40  # characters of a config


def renewed(new: Iterable[Finding], old: Iterable[Finding]) -> list[Finding]:
    """``new``, and of ``old`` what no new one replaces: findings of another version, or put there by hand."""
    current = list(new)
    names = {finding.name for finding in current}
    return [*current, *(finding for finding in old if finding.name not in names)]


def keep(folder: Path, findings: Sequence[Finding], seconds: Mapping[str, float]) -> Path:
    """Write findings about a run into ``folder`` (its ``report/``), where pages and tables look for them; the path.

    What is there already under other names stays; a file that cannot be read is replaced with a warning.
    """
    path = folder / "findings.json"
    try:
        old = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        old = []
    except (OSError, ValueError) as error:
        warnings.warn(f"{path}: replaced: {error}", stacklevel=2)
        old = []
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(renewed(findings, old), seconds))
    return path


def tables(facts: Facts, findings: Sequence[Finding]) -> list[Table]:
    """What was measured: a row for each candidate that values are named after (``c0003.loss``), and the rest."""
    values = {name: value for finding in findings for name, value in finding.values.items()}
    limits = {name: limit for finding in findings for name, limit in finding.threshold.items()}
    by_candidate: dict[str, dict[str, Value]] = {}
    alone: dict[str, Value] = {}
    for name, value in values.items():
        candidate, dot, quantity = name.partition(".")
        if dot and candidate in facts.run.candidates:
            by_candidate.setdefault(candidate, {})[quantity] = value
        else:
            alone[name] = value
    laid_out = []
    if by_candidate:
        laid_out.append(_of_candidates(facts, by_candidate, _limits(limits, alone)))
    if alone:
        rows = [[Cell(_words(name)), cell(value), cell(limits.get(name, math.nan))] for name, value in alone.items()]
        laid_out.append(Table(("value", "run (95% interval)", "held against"), rows, 1))
    return laid_out


def _of_candidates(facts: Facts, values: Mapping[str, Mapping[str, Value]], caption: str) -> Table:
    quantities = list(dict.fromkeys(quantity for mine in values.values() for quantity in mine))
    rows = []
    for name in sorted(values):
        candidate = facts.run.candidates[name]
        control = " (control)" if candidate is facts.run.control else ""
        cells = [cell(values[name].get(quantity, math.nan)) for quantity in quantities]
        rows.append([Cell(name), Cell(candidate.name[:_LABEL] + control), *cells])
    return Table(("candidate", "config", *map(_words, quantities)), rows, 2, caption)


def _limits(limits: Mapping[str, float], alone: Mapping[str, Value]) -> str:
    """Thresholds that no cell of the other table shows, in words: those of candidates by their quantity."""
    by_name: dict[str, list[str]] = {}
    for name, limit in limits.items():
        if name not in alone:
            candidate, dot, quantity = name.partition(".")
            of = candidate if dot else ""
            by_name.setdefault(f"{_words(quantity if dot else name)} {limit:g}", []).append(of)
    texts = [f"{text} ({', '.join(of)})" if any(of) else text for text, of in by_name.items()]
    return f"Held against: {'; '.join(texts)}." if texts else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def cell(value: Value) -> Cell:
    """``0.060 (0.045 to 0.075)``; a number without an interval with three digits, or all before the point."""
    if not isinstance(value, Interval):
        text = f"{value:.3g}" if abs(value) < 1000.0 else f"{value:,.0f}"
        return Cell(NONE if math.isnan(value) else text, value)
    if not value.half_width > 0.0:
        return cell(value.value)
    places = decimals(value.half_width)
    # No break inside of the interval: a narrow cell breaks before it.
    between = ends(value, places).replace(" ", NO_BREAK)
    return Cell(f"{number(value.value, places)} ({between})", value.value)
