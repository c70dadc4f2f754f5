"""Which candidates buy low loss most cheaply: the frontier of loss against speed, compute and size.

What it is: all that were trained to the end, each with its loss at equal tokens, its tokens per second of training, the
matrix entries that a token is multiplied by and all its parameters; and for each of these three costs the Pareto
frontier, as far as the seeds can tell. Another one *clearly* beats a candidate if it costs no more, by intervals that
do not overlap where the cost is measured, and has a lower loss by an interval (paired by seed) that does not reach
zero; it *may* beat it where an interval leaves that open. On the frontier are those that no other may beat, off it
those that another clearly beats; the rest may be on it.

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
from analysis.language.finishers import (
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
    settings,
    value_of,
)
from analysis.reports.tables import listed
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Candidate, Run
from trainables.shared_moe.accounting import count_params, matmul_params

_SPEED, _COMPUTE, _SIZE = "tokens_per_s", "matmul_parameters", "parameters"
_ON, _MAYBE, _OFF = 1.0, 0.5, 0.0
_WORDS = {_ON: "on the frontier", _MAYBE: "perhaps on it", _OFF: "off it"}
_AXES = {
    _SPEED: "tokens per second of training",
    _COMPUTE: "millions of matrix entries a token is multiplied by",
    _SIZE: "millions of parameters",
}
_SHORT = {_SPEED: "speed", _COMPUTE: "compute", _SIZE: "size"}
_NAMES = {_SPEED: "tokens per second", _COMPUTE: "matrix entries a token", _SIZE: "parameters"}


@dataclass(frozen=True)
class _Priced:
    """A candidate with its losses by seed at the place in tokens that all have reached, and what it costs.

    Exact costs have bounds equal to the value.
    """

    candidate: Candidate
    losses: Mapping[int, float]
    costs: Mapping[str, Interval]

    @property
    def loss(self) -> Interval:
        return mean_interval(list(self.losses.values()))


@diagnostic("Loss against speed, compute and size", needs="records")
def efficiency(run: Run) -> Finding:
    """Return a finding with values for each candidate: ``loss`` at equal tokens (nats per token), ``tokens_per_s``, and
    in millions ``matmul_parameters`` (entries that a token is multiplied by) and ``parameters``; ``frontier_by_speed``,
    ``frontier_by_compute``, ``frontier_by_size``: 1 on the frontier, 0.5 may be on it, 0 off it.
    ``millions_of_tokens``: where losses are compared. ``pass`` where every place is clear, ``warn`` where seeds leave
    one open: it never fails, for no model has to be cheap.
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
    is_open = any(place == _MAYBE for places in known.values() for place in places.values())
    sentences = [_sentence(cost, places, rows) for cost, places in known.items()]
    if known:
        sentences.append("In the table 1 is on a frontier, 0.5 perhaps, 0 off it.")
    if _SPEED in known:
        sentences.append("Tokens per second are wall-clock figures of machines that other work may have shared.")
    else:
        sentences.append("No candidate has reported tokens per second.")
    plots = tuple(_plot(cost, places, rows) for cost, places in known.items())
    return answer("warn" if is_open else "pass", " ".join([*sentences, closing(there)]), values, {}, plots)


def _priced(there: Finished) -> tuple[float, list[_Priced]]:
    """All with a readable config, at the place in tokens that they all have reached."""
    by_candidate = {c.id: curves(c, "tokens") for c in there.candidates if settings(c, "shared_moe") is not None}
    every = [curve for side in by_candidate.values() for curve in side.values()]
    if not every:
        return math.nan, []
    place, rows = furthest(every), []
    for candidate in there.candidates:
        side, config = by_candidate.get(candidate.id), settings(candidate, "shared_moe")
        if not side or config is None:
            continue
        exact = {_COMPUTE: matmul_params(config) / MILLION, _SIZE: count_params(config) / MILLION}
        costs = {cost: Interval(value, value, value) for cost, value in exact.items()}
        losses = {seed: value for seed, curve in side.items() if not math.isnan(value := curve.between(place))}
        rows.append(_Priced(candidate, losses, {_SPEED: _speed(candidate), **costs}))
    return place, rows


def _speed(candidate: Candidate) -> Interval:
    """Tokens per second: the mean over members of each one's median report."""
    medians = []
    for member in members(candidate).values():
        rates = [rate for r in member.reports if math.isfinite(rate := float(r.metrics.get(_SPEED, math.nan)))]
        medians += [median(rates)] if rates else []
    return mean_interval(medians)


def _frontier(rows: list[_Priced], cost: str) -> dict[str, float]:
    """The place of each with that cost, by id; empty if fewer than two have it."""
    known = [row for row in rows if math.isfinite(row.costs[cost].value)]
    if len(known) < 2:
        return {}
    return {row.candidate.id: _place(row, [other for other in known if other is not row], cost) for row in known}


def _place(row: _Priced, others: list[_Priced], cost: str) -> float:
    place = _ON
    for other in others:
        cheaper, better = _no_dearer(other.costs[cost], row.costs[cost], cost), _better(other, row)
        if cheaper == better == "clearly":
            return _OFF
        if "no" not in (cheaper, better):
            place = _MAYBE
    return place


def _no_dearer(one: Interval, other: Interval, cost: str) -> str:
    """Whether ``one`` costs no more: ``clearly``, ``maybe`` or ``no``; speed is the cheaper the higher it is."""
    if cost == _SPEED:
        one, other = one.times(-1.0), other.times(-1.0)
    if one.high <= other.low:
        return "clearly"
    return "no" if one.low > other.high else "maybe"  # without bounds nothing is clear


def _better(one: _Priced, other: _Priced) -> str:
    """Whether the loss of ``one`` is lower, in pairs of seeds: ``clearly``, ``maybe`` or ``no``."""
    seeds = sorted(one.losses.keys() & other.losses.keys())
    difference = mean_interval([one.losses[seed] - other.losses[seed] for seed in seeds])
    if difference.high < 0.0:
        return "clearly"
    return "no" if difference.low > 0.0 else "maybe"


def _values(row: _Priced, known: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, Value]]:
    yield value_of(row.candidate, "loss"), row.loss
    for cost, estimate in row.costs.items():
        exact = estimate.low == estimate.value == estimate.high
        yield value_of(row.candidate, cost), estimate.value if exact else estimate
    for cost, places in known.items():
        if row.candidate.id in places:
            yield value_of(row.candidate, f"frontier_by_{_SHORT[cost]}"), places[row.candidate.id]


def _sentence(cost: str, places: Mapping[str, float], rows: list[_Priced]) -> str:
    named = {row.candidate.id: name(row.candidate) for row in rows}
    on, maybe, off = ([named[one] for one in places if places[one] == place] for place in (_ON, _MAYBE, _OFF))
    text = f"On the frontier by {_NAMES[cost]}: {listed(on) if on else 'none for certain'}"
    text += f"; perhaps: {listed(maybe)}" if maybe else ""
    return text + (f"; not: {listed(off)}." if off else ".")


def _plot(cost: str, places: Mapping[str, float], rows: list[_Priced]) -> Plot:
    series = [
        Series.of(f"{name(row.candidate)}: {_WORDS[places[row.candidate.id]]}", [row.loss], [row.costs[cost].value])
        for row in rows
        if row.candidate.id in places
    ]
    return Plot(
        f"Loss at equal tokens against {_NAMES[cost]}",
        _AXES[cost],
        f"{LOSS} (nats per token)",
        "points",
        tuple(series),
        log_x=is_wide([x for one in series for x in one.x]),
    )
