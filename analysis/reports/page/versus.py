"""Two runs beside each other: what each found, whether one's best is better than the other's, and what they differ in.

Both bests were chosen for being good, so the interval between them is no claim (`analysis.stats.claims` makes those).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.reports.page.embedded import Steps, members_of, script_safe
from analysis.reports.page.facts import Facts
from analysis.reports.page.page import rendered
from analysis.reports.page.tables import Cell, Table, param_text
from analysis.reports.tables import NONE, counted, duration, ends, listed, mean_std, number, with_unit, write_text
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate

_SCRIPTS = ("charts.js", "curves.js", "versus.js")
_SAME = ("family", "objective", "mode")
_IGNORED = ("name",)  # of plans


def incomparable(a: Facts, b: Facts) -> str:
    """What keeps two runs from being compared, in a clause; empty if they can be."""
    for key in _SAME:
        if a.run.plan[key] != b.run.plan[key]:
            return f"{key} is {a.run.plan[key]!r} in one and {b.run.plan[key]!r} in the other"
    return ""


def write(a: Facts, b: Facts, out: Path) -> Path:
    """Write the page of run A against run B; its path."""
    out.parent.mkdir(parents=True, exist_ok=True)
    names = _names(a, b)
    page = rendered(
        "versus.html.j2",
        _SCRIPTS,
        title=f"{names[0]} against {names[1]}",
        verdict=verdict(a, b),
        doubts=list(_doubts(a, b)),
        sides=_sides(a, b),
        curves=bool(_followed(a) or _followed(b)),
        differences=[
            ("plans", "What the plans differ in", _differences(names, _flat(a.run.plan), _flat(b.run.plan))),
            ("configs", "What the best configs differ in", _configs(names, a, b)),
        ],
        data=script_safe(_data(a, b)),
    )
    write_text(out, page)
    return out


def verdict(a: Facts, b: Facts) -> str:
    """Which of the bests is ahead, by how much, over the seeds that both have."""
    one, other = a.best, b.best
    names = _names(a, b)
    if one is None or other is None:
        missing = [name for name, facts in zip(names, (a, b), strict=True) if facts.best is None]
        return f"Nothing to compare: no candidate of {listed(missing)} has a score."
    if one.entry.until_step != other.entry.until_step:
        steps = f"{one.entry.until_step:,} and {other.entry.until_step:,}"
        return f"The best of {names[0]} and of {names[1]} were scored at different steps, {steps}: see the curves."
    ahead, num_pairs = _ahead(a, b)
    if not num_pairs:
        return f"How far the best of {names[0]} and of {names[1]} are apart is unknown: they have no seed in common."
    leader, lead = (names[0], ahead) if ahead.value > 0.0 else (names[1], ahead.times(-1.0))
    if ahead.value == 0.0:
        return f"The best of {names[0]} and of {names[1]} are level in {counted(num_pairs, 'pair')} of seeds."
    places = max(a.places, b.places)
    amount = with_unit(number(lead.value, places), a.unit)
    interval = ends(lead, places)
    sure = f"95% interval {interval}, {num_pairs} seeds in pairs" if interval != "none" else "one pair of seeds"
    chance = "" if lead.low > 0.0 else "; it may be chance"
    return f"The best of {leader} is ahead by {amount} ({sure}){chance}."


def _ahead(a: Facts, b: Facts) -> tuple[Interval, int]:
    """How far A's best is ahead of B's over common seeds, positive where A is better."""
    assert a.best is not None
    assert b.best is not None
    ours, theirs = a.best.entry.values, b.best.entry.values
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    ahead = [a.run.sign * (y - x) for x, y in pairs if x is not None and y is not None]
    return mean_interval(ahead), len(ahead)


def _doubts(a: Facts, b: Facts) -> Iterator[str]:
    digests = [(facts.run.provenance.get("data") or {}).get("sha256") for facts in (a, b)]
    names = _names(a, b)
    if digests[0] != digests[1]:
        yield "They were trained on different data: their values cannot be held against each other."
    elif digests[0] is None:
        yield "Nothing says which data they were trained on."
    for name, facts in zip(names, (a, b), strict=True):
        if facts.state != "finished":
            yield f"{name} is not finished ({facts.state})."
    yield "Both were chosen for being good: a claim takes `tune-rh ab`, which runs pairs of seeds for it alone."


def _sides(a: Facts, b: Facts) -> Table:
    columns = [dict(_side(facts)) for facts in (a, b)]
    rows = [[Cell(key), *(Cell(column.get(key, NONE)) for column in columns)] for key in columns[0]]
    return Table(("", *_names(a, b)), rows, 3)


def _side(facts: Facts) -> Iterator[tuple[str, str]]:
    run, best, spent = facts.run, facts.best, facts.ledger.spent
    control = next((s for s in facts.standings if s.entry.is_control), None)
    lost = sum(m.lost_stage is not None for m in run.members.values())
    yield "state", facts.state
    yield "candidates", str(len(run.candidates))
    yield "funnel", ", ".join(f"{row.entered} → {row.passed}" for row in run.funnel) or NONE
    yield "best", NONE if best is None else f"{best.candidate} {run.candidates[best.candidate].name}"
    for label, standing in ((run.objective, best), (f"{run.objective} of the control", control)):
        values = NONE if standing is None else mean_std(standing.val, standing.std, facts.places)
        yield label, values
    tested = best is not None and not math.isnan(best.test)
    yield "test", mean_std(best.test, best.test_std, facts.places) if best is not None and tested else NONE
    yield "seeds of the best", NONE if best is None else str(best.num_seeds)
    yield "lost members", str(lost)
    yield "steps", f"{spent.steps:,}"
    yield "compute time", duration(spent.slot_seconds)


def _configs(names: Sequence[str], a: Facts, b: Facts) -> Table:
    configs = [{} if f.best is None else f.run.candidates[f.best.candidate].config for f in (a, b)]
    return _differences(names, *(_flat(config) for config in configs))


def _differences(names: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> Table:
    keys = [key for key in {**one, **other} if one.get(key, NONE) != other.get(key, NONE) and key not in _IGNORED]
    texts = [[key, *(param_text(side[key]) if key in side else NONE for side in (one, other))] for key in keys]
    return Table(("", *names), [[Cell(text) for text in row] for row in texts], 3)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``scoring.band`` and ``stages.0.eta`` for what lies in tables and lists of tables."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        is_tables = isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value)
        inner = {str(i): item for i, item in enumerate(value)} if is_tables else value
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _followed(facts: Facts) -> list[Candidate]:
    """The best one, then the control, where that is another."""
    best = [] if facts.best is None else [facts.run.candidates[facts.best.candidate]]
    control = facts.run.control
    return best if control is None or control in best else [*best, control]


def _data(a: Facts, b: Facts) -> dict[str, Any]:
    steps, members, shown, quality = Steps(), {}, [], []
    for place, (name, facts) in enumerate(zip(_names(a, b), (a, b), strict=True)):
        for candidate in _followed(facts):
            is_control = candidate is facts.run.control
            label = f"{name}: {candidate.id}{' (control)' if is_control else ''}"
            members[label] = members_of(facts, candidate, steps)
            shown.append([label, place, is_control])
        points = [[p.total_steps, round(p.value, facts.places + 1)] for p in facts.quality]
        if points:
            points.append([facts.run.spent.steps, points[-1][1]])
        quality.append({"label": name, "points": points})
    return {
        "objective": a.run.objective,
        "unit": a.unit,
        "mode": a.run.plan["mode"],
        "places": max(a.places, b.places),
        "gates": [min(f.run.stages[0]["until_step"] for f in (a, b))],
        "control": None,
        "members": members,
        "shown": shown,
        "steps": steps.all,
        "quality": quality,
    }


def _names(a: Facts, b: Facts) -> tuple[str, str]:
    """Of their folders; with those of the folders above where they are the same."""
    roots = (a.run.root, b.run.root)
    if roots[0].name != roots[1].name:
        return roots[0].name, roots[1].name
    return "/".join(roots[0].parts[-2:]), "/".join(roots[1].parts[-2:])
