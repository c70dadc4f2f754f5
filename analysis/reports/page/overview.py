"""The first screen of a search as small charts: the winner with its doubt, what it beat, and the funnel.

Positions are shares of a width in percent, so that the template needs no arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.reports.page.facts import Facts
from analysis.reports.page.tables import param_text
from analysis.reports.page.words import FEW_SEEDS, against_baselines, leads
from analysis.reports.tables import counted, ends, listed, mean_std, number, with_unit
from analysis.view import Standing

_MAX_PARAMS = 12


@dataclass(frozen=True)
class _Flag:
    """What speaks for or against the winner, in a few words."""

    level: Literal["good", "warn", "bad"]
    text: str


@dataclass(frozen=True)
class _Bar:
    """A lead with its interval; ``low`` and ``high`` are None without one."""

    label: str
    text: str
    at: float
    low: float | None
    high: float | None
    clear: bool


@dataclass(frozen=True)
class _Dot:
    """A baseline, or what of the run stands among them, on a line whose right end is better."""

    name: str
    text: str
    at: float
    role: str


@dataclass(frozen=True)
class _Stage:
    """How many came to a stage and passed its gate, as widths too."""

    until_step: int
    num_seeds: int
    entered: int
    passed: int
    entered_width: float
    passed_width: float


@dataclass(frozen=True)
class Overview:
    """The cards; parts that have nothing to show are empty.

    Attributes:
        winner: id and name of the best one; empty if there is none.
        is_end: whether it has finished, rather than leads so far.
        zero: where a lead of nothing stands.
    """

    winner: str
    is_end: bool
    value: str
    test: str
    params: Sequence[tuple[str, str]]
    flags: Sequence[_Flag]
    bars: Sequence[_Bar]
    zero: float
    dots: Sequence[_Dot]
    stages: Sequence[_Stage]


def overview(facts: Facts) -> Overview:
    """The first screen of a search."""
    best, run = facts.best, facts.run
    bars, zero = _bars(facts)
    if best is None:
        return Overview("", False, "", "", (), (), (), 0.0, _dots(facts), _stages(facts))
    candidate = run.candidates[best.candidate]
    params = [(name, param_text(value)) for name, value in candidate.params.items()][:_MAX_PARAMS]
    is_named = bool(candidate.label) or not params
    test = with_unit(mean_std(best.test, best.test_std, facts.places), facts.unit)
    return Overview(
        winner=f"{candidate.id} {candidate.name}" if is_named and candidate.name != candidate.id else candidate.id,
        is_end=facts.is_end,
        value=with_unit(mean_std(best.val, best.std, facts.places), facts.unit),
        test="" if math.isnan(best.test) else test,
        params=params,
        flags=tuple(_flags(facts, best)),
        bars=bars,
        zero=zero,
        dots=_dots(facts),
        stages=_stages(facts),
    )


def _flags(facts: Facts, best: Standing) -> Iterator[_Flag]:
    for other, lead in leads(facts):
        if lead.ahead.low > 0.0:
            yield _Flag("good", f"ahead of {other}")
        else:
            text = "lead over {} may be chance" if lead.ahead.value > 0.0 else "not ahead of {}"
            yield _Flag("warn", text.format(other))
    if best.entry.is_control:
        yield _Flag("bad", "nothing beats the control")
    if facts.baselines and not math.isnan(best.test):
        above, tied = against_baselines(facts, best)
        if above:
            yield _Flag("bad", f"{counted(len(above), 'baseline')} without a network better")
        elif tied:
            yield _Flag("warn", f"tied with {counted(len(tied), 'baseline')}")
        else:
            yield _Flag("good", f"beats all {counted(len(facts.baselines), 'baseline')}")
    verdicts = facts.verdicts(best.candidate)
    failed = [name for name, counts in verdicts.items() if counts["fail"]]
    if failed:
        yield _Flag("bad", f"fails {listed(failed)}")
    elif any(counts["pass"] for counts in verdicts.values()):
        yield _Flag("good", "no diagnostic fails")
    num = best.num_seeds - best.num_lost
    if num < FEW_SEEDS:
        yield _Flag("warn", f"{counted(num, 'seed')}: a claim takes {FEW_SEEDS}")


def _bars(facts: Facts) -> tuple[Sequence[_Bar], float]:
    """Leads over the next, the control and references on one axis, and where zero is on it."""
    others = [*leads(facts), *((f"reference {lead.other}", lead) for lead in facts.over_references)]
    known = [(label, lead.ahead, lead.num_pairs) for label, lead in others if math.isfinite(lead.ahead.value)]
    if not known:
        return (), 0.0
    seen = [v for _, ahead, _ in known for v in ahead if math.isfinite(v)]
    low, high = min(0.0, *seen), max(0.0, *seen)
    width = (high - low) or 1.0

    def at(value: float) -> float | None:
        return round(4.0 + 92.0 * (value - low) / width, 2) if math.isfinite(value) else None

    bars = []
    for label, ahead, num_pairs in known:
        interval = ends(ahead, facts.places)
        text = number(ahead.value, facts.places, signed=True)
        text += f" ({interval})" if interval != "none" else f" ({counted(num_pairs, 'pair')})"
        bars.append(_Bar(label, text, at(ahead.value) or 0.0, at(ahead.low), at(ahead.high), ahead.low > 0.0))
    return bars, at(0.0) or 0.0


def _dots(facts: Facts) -> Sequence[_Dot]:
    """Baselines with the best one, the control and references on test; empty without baselines."""
    if not facts.baselines:
        return ()
    rows = [(float(row.value), row.name, "") for row in facts.baselines]
    rows += [(s.test, s.candidate, role) for s, role in facts.beside_baselines]
    rows = [row for row in rows if math.isfinite(row[0])]
    values = [facts.run.sign * value for value, _, _ in rows]
    worst, width = max(values, default=0.0), (max(values, default=0.0) - min(values, default=0.0)) or 1.0
    return [
        _Dot(name, number(value, facts.places), round(3.0 + 94.0 * (worst - facts.run.sign * value) / width, 2), role)
        for value, name, role in sorted(rows, key=lambda row: row[2])
    ]


def _stages(facts: Facts) -> Sequence[_Stage]:
    rows = facts.run.funnel
    most = max((row.entered for row in rows), default=0) or 1
    return [
        _Stage(
            row.until_step,
            row.num_seeds,
            row.entered,
            row.passed,
            round(100.0 * row.entered / most, 2),
            round(100.0 * row.passed / most, 2),
        )
        for row in rows
    ]
