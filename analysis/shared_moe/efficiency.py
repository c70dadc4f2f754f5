"""Who buys low loss most cheaply: the frontier of loss against speed, compute and size.

What it is: everybody that was trained to the end with its loss at equal tokens, its tokens per second of training, the
matrix entries that a token is multiplied by and all its parameters; and for each of these three costs who is on the
Pareto frontier, as far as the seeds can tell. Another one *clearly* beats a candidate if it costs no more, by intervals
that do not overlap where the cost is measured, and has a lower loss by an interval (paired by seed) that does not reach
zero; it *may* beat it where an interval leaves that open. On the frontier is whom nobody may beat, off it whom somebody
clearly beats; the others may be on it.

What it is not: a benchmark. Tokens per second are wall-clock figures of the run's machines, which other work may have
shared: the median over a member's reports, evaluation left out. No claim either: with m candidates there are up to
m (m - 1) pairs a cost, and each interval has its coverage for one look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, answer, diagnostic
from analysis.reports.tables import listed
from analysis.shared_moe.finishers import (
    LOSS,
    MILLION,
    Finished,
    closing,
    curves,
    finished,
    furthest,
    is_wide,
    members,
    name,
    over_seeds,
    settings,
    value_of,
)
from analysis.stats.interval import Interval
from analysis.view import Candidate, Run
from trainables.shared_moe.accounting import count_params, matmul_params

SPEED, COMPUTE, SIZE = "tokens_per_s", "matmul_parameters", "parameters"
ON, MAYBE, OFF = 1.0, 0.5, 0.0
_WORDS = {ON: "on the frontier", MAYBE: "perhaps on it", OFF: "off it"}
_AXES = {
    SPEED: "tokens per second of training",
    COMPUTE: "millions of matrix entries a token is multiplied by",
    SIZE: "millions of parameters",
}
_SHORT = {SPEED: "speed", COMPUTE: "compute", SIZE: "size"}
_NAMES = {SPEED: "tokens per second", COMPUTE: "matrix entries a token", SIZE: "parameters"}


@dataclass(frozen=True)
class Priced:
    """A candidate with what it costs.

    Attributes:
        losses: by seed, at the place in tokens that all have reached.
        costs: by `SPEED`, `COMPUTE` and `SIZE`, as reports show them; exact ones have bounds equal to the value.
    """

    candidate: Candidate
    losses: Mapping[int, float]
    costs: Mapping[str, Interval]


@diagnostic("Loss against speed, compute and size", needs="records")
def efficiency(run: Run) -> Finding:
    """Return a finding with values for each candidate: ``loss`` at equal tokens (nats per token), ``tokens_per_s``, and
    in millions ``matmul_parameters`` (entries that a token is multiplied by) and ``parameters``; ``frontier_by_speed``,
    ``frontier_by_compute``, ``frontier_by_size``: 1 on the frontier, 0.5 may be on it, 0 off it.
    ``millions_of_tokens``: where losses are compared. ``pass`` where every place is clear, ``warn`` where seeds leave
    one open: it never fails, for nobody has to be cheap.
    """
    there = finished(run)
    place, rows = _priced(there)
    if len(rows) < 2:
        raise NoEvidence("Fewer than two candidates were trained to the end on common seeds.")
    frontiers = {cost: _frontier(rows, cost) for cost in _AXES}
    known = {cost: places for cost, places in frontiers.items() if places}
    values: dict[str, Value] = {"millions_of_tokens": place / MILLION}
    for row in rows:
        values |= dict(_values(row, known))
    is_open = any(place == MAYBE for places in known.values() for place in places.values())
    said = [_said(cost, places, rows) for cost, places in known.items()]
    if known:
        said.append("In the table 1 is on a frontier, 0.5 perhaps, 0 off it.")
    if SPEED in known:
        said.append("Tokens per second are wall-clock figures of machines that other work may have shared.")
    else:
        said.append("Nobody has reported tokens per second.")
    plots = tuple(_plot(cost, places, rows) for cost, places in known.items())
    return answer("warn" if is_open else "pass", " ".join([*said, closing(there)]), values, {}, plots)


def _priced(there: Finished) -> tuple[float, list[Priced]]:
    """Everybody with a readable config, at the place in tokens that all have reached."""
    found = {c.id: curves(c, "tokens") for c in there.candidates if settings(c) is not None}
    every = [curve for side in found.values() for curve in side.values()]
    if not every:
        return math.nan, []
    place, rows = furthest(every), []
    for candidate in there.candidates:
        side, config = found.get(candidate.id), settings(candidate)
        if not side or config is None:
            continue
        exact = {COMPUTE: matmul_params(config) / MILLION, SIZE: count_params(config) / MILLION}
        costs = {cost: Interval(value, value, value) for cost, value in exact.items()}
        losses = {seed: value for seed, curve in side.items() if not math.isnan(value := curve.at(place))}
        rows.append(Priced(candidate, losses, {SPEED: _speed(candidate), **costs}))
    return place, rows


def _speed(candidate: Candidate) -> Interval:
    """Tokens per second: the mean over members of each one's median report."""
    medians = []
    for member in members(candidate).values():
        rates = [rate for r in member.reports if math.isfinite(rate := float(r.metrics.get(SPEED, math.nan)))]
        medians += [median(rates)] if rates else []
    return over_seeds(medians)


def _frontier(rows: list[Priced], cost: str) -> dict[str, float]:
    """The place of each with that cost, by id; empty if fewer than two have it."""
    known = [row for row in rows if math.isfinite(row.costs[cost].value)]
    if len(known) < 2:
        return {}
    return {row.candidate.id: _place(row, [other for other in known if other is not row], cost) for row in known}


def _place(row: Priced, others: list[Priced], cost: str) -> float:
    found = ON
    for other in others:
        cheaper, better = _no_dearer(other.costs[cost], row.costs[cost], cost), _better(other, row)
        if cheaper == better == "clearly":
            return OFF
        if "no" not in (cheaper, better):
            found = MAYBE
    return found


def _no_dearer(one: Interval, other: Interval, cost: str) -> str:
    """Whether ``one`` costs no more: ``clearly``, ``maybe`` or ``no``; speed is the cheaper the higher it is."""
    if cost == SPEED:
        one, other = (Interval(-cost.value, -cost.high, -cost.low) for cost in (one, other))
    if one.high <= other.low:
        return "clearly"
    return "no" if one.low > other.high else "maybe"  # without bounds nothing is clear


def _better(one: Priced, other: Priced) -> str:
    """Whether the loss of ``one`` is lower, in pairs of seeds: ``clearly``, ``maybe`` or ``no``."""
    seeds = sorted(one.losses.keys() & other.losses.keys())
    difference = over_seeds([one.losses[seed] - other.losses[seed] for seed in seeds])
    if difference.high < 0.0:
        return "clearly"
    return "no" if difference.low > 0.0 else "maybe"


def _values(row: Priced, known: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, Value]]:
    yield value_of(row.candidate, "loss"), over_seeds(list(row.losses.values()))
    for cost, estimate in row.costs.items():
        exact = estimate.low == estimate.value == estimate.high
        yield value_of(row.candidate, cost), estimate.value if exact else estimate
    for cost, places in known.items():
        if row.candidate.id in places:
            yield value_of(row.candidate, f"frontier_by_{_SHORT[cost]}"), places[row.candidate.id]


def _said(cost: str, places: Mapping[str, float], rows: list[Priced]) -> str:
    named = {row.candidate.id: name(row.candidate) for row in rows}
    on, maybe, off = ([named[who] for who, its in places.items() if its == place] for place in (ON, MAYBE, OFF))
    text = f"On the frontier by {_NAMES[cost]}: {listed(on) if on else 'nobody for certain'}"
    text += f"; perhaps: {listed(maybe)}" if maybe else ""
    return text + (f"; not: {listed(off)}." if off else ".")


def _plot(cost: str, places: Mapping[str, float], rows: list[Priced]) -> Plot:
    series = []
    for row in rows:
        if row.candidate.id in places:
            loss, label = over_seeds(list(row.losses.values())), _WORDS[places[row.candidate.id]]
            at = (row.costs[cost].value,)
            series.append(Series(f"{name(row.candidate)}: {label}", at, (loss.value,), (loss.low,), (loss.high,)))
    return Plot(
        f"Loss at equal tokens against {_NAMES[cost]}",
        _AXES[cost],
        f"{LOSS} (nats per token)",
        "points",
        tuple(series),
        log_x=is_wide([x for one in series for x in one.x]),
    )
