"""What a race says, in plain sentences: the best seed, the rate of success, the worth of one more, the gate's order."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import stdev
from typing import TYPE_CHECKING

from analysis.reports.race.best_of_seeds import Line, Seeds, summarise
from analysis.reports.tables import counted, decimals, duration, listed, number, with_unit

if TYPE_CHECKING:
    from analysis.reports.race.facts import Race, Racer

LOST = ("diverged", "failed")
"""Statuses of a seed that has no value to count."""


def at_first_gate(race: Race) -> Seeds:
    """What the seeds are worth where all can be compared, in the minimised sign; seeds not there yet do not count."""
    sign = race.sign
    values, lost = [], 0
    for racer in race.racers:
        value = at_gate(racer, 0)
        if value is not None:
            values.append(sign * value)
        elif racer.at_gates or racer.status in LOST:
            lost += 1
    success = None if race.success is None or not math.isfinite(race.success) else sign * race.success
    return summarise(values, lost, success)


def lines(race: Race, seeds: Seeds) -> list[str]:
    about_seeds = [_best(race), _success(race, seeds), _expected(race, seeds), _further(race, seeds)]
    return [line for line in (*about_seeds, _went_on(race), _order(race), _cost(race)) if line]


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def at_gate(racer: Racer, gate: int) -> float | None:
    """Best so far at a gate; None where it was lost or did not come there."""
    return finite(racer.at_gates[gate]) if gate < len(racer.at_gates) else None


def ranked(race: Race) -> list[Racer]:
    """Those that went furthest first, then by their best; without a value last."""
    sign = race.sign

    def key(racer: Racer) -> tuple[bool, int, float, int]:
        best = finite(racer.best)
        return best is None, -racer.passed, 0.0 if best is None else sign * best, racer.seed

    return sorted(race.racers, key=key)


def places(race: Race) -> int:
    """Decimals for two digits of the spread between seeds, where it is narrowest."""
    groups = [[v for r in race.racers if (v := at_gate(r, gate)) is not None] for gate in range(len(race.gates))]
    spreads = [stdev(group) for group in groups if len(group) > 1]
    return decimals(min((spread for spread in spreads if spread > 0.0), default=math.nan))


def _shown(race: Race, value: float) -> str:
    return with_unit(number(value, places(race)), race.unit)


def _best(race: Race) -> str:
    gone = [f"{racer.seed} ({racer.status})" for racer in race.racers if racer.status in LOST]
    lost = f"; lost: {listed(gone)}" if gone else "; none lost"
    with_value = [racer for racer in race.racers if finite(racer.best) is not None]
    if not with_value:
        return f"No seed has a value: {counted(len(race.racers), 'seed')} in the race{lost}."
    best = min(with_value, key=lambda racer: race.sign * (racer.best or 0.0))
    test = "" if finite(best.test) is None else f", on test {_shown(race, best.test or 0.0)}"
    value = _shown(race, best.best or 0.0)
    return (
        f"Best: seed {best.seed} with {race.objective} {value} at step {best.best_step:,}{test}, "
        f"of {counted(len(race.racers), 'seed')}{lost}."
    )


def _success(race: Race, seeds: Seeds) -> str:
    gate = _gate(race)
    if not seeds.num:
        return f"No success rate: no seed has a value {gate} yet."
    if seeds.line is None:
        why = "and there are too few to tell" if seeds.num - seeds.lost < 4 else "more clearly than chance makes them"
        return f"The values {gate} do not fall into two groups {why}, and no line was given: no success rate."
    side = "at or below" if race.mode == "min" else "at or above"
    value = _shown(race, race.sign * seeds.line.value)
    text = (
        f"Success: {seeds.successes} of {counted(seeds.num, 'seed')} {side} {value} "
        f"{gate}, a rate of {seeds.rate.value:.2f} "
        f"(95% interval {seeds.rate.low:.2f} to {seeds.rate.high:.2f}); "
        f"{_where_from(seeds.line, seeds.num - seeds.lost)}."
    )
    later = sum((v := finite(racer.best)) is not None and race.sign * v <= seeds.line.value for racer in race.racers)
    return text if later == seeds.successes else f"{text} At any time, {later} have reached it."


def _where_from(line: Line, num: int) -> str:
    if line.source == "given":
        return "the line was given"
    chance = f"{line.chance:.1%}" if line.chance >= 0.001 else "under 0.1%"
    return (
        f"the line was found between two groups, which hold {line.separation:.0%} of the variance between them "
        f"({chance} of sets of {num} normal values fall apart as clearly)"
    )


def _gate(race: Race) -> str:
    return f"at step {race.gates[0]:,}" if race.gates else "at the end"


def _expected(race: Race, seeds: Seeds) -> str:
    known = [row for row in seeds.best_of if math.isfinite(row.value.value)]
    if not known:
        return ""
    picked = [row for row in known if row.k in (1, 2, 4, 8) or row is known[-1]]
    values = [f"{number(race.sign * row.value.value, places(race))} of {row.k}" for row in picked]
    return f"Expected best {_gate(race)}{f', in {race.unit}' if race.unit else ''}: {', '.join(values)}."


def _further(race: Race, seeds: Seeds) -> str:
    """What one more seed brings. The gain from k to k + 1 never grows with k, so the last one known is a bound."""
    known = [row for row in seeds.best_of if math.isfinite(row.value.value)]
    text = ""
    if len(known) > 1:
        gain = _shown(race, abs(known[-2].value.value - known[-1].value.value))
        text = f"Going from {known[-2].k} to {known[-1].k} seeds improves the expected best by {gain}; "
        text += "a further seed is expected to bring no more."
    k = known[-1].k if known else 0
    if seeds.line and 0 < k < len(seeds.best_of):
        here, there = (f"{row.success:.2f}" for row in seeds.best_of[k - 1 : k + 1])
        change = f"from {here} to {there}" if here != there else f"by less than 0.01, from {here}"
        text += f" By the success model it raises the chance that one of them succeeds {change}."
    return text.strip()


def _went_on(race: Race) -> str:
    if len(race.gates) < 2:
        return ""
    gone = [racer for racer in ranked(race) if racer.passed > 0]
    if not gone:
        return "No seed passed the first gate."
    won = []
    for racer in gone:
        first, best = at_gate(racer, 0), finite(racer.best)
        if first is not None and best is not None:
            won.append(f"seed {racer.seed} by {number(race.sign * (first - best), places(race))}")
        else:
            won.append(f"seed {racer.seed} by an unknown amount")
    unit = f" {race.unit}" if race.unit else ""
    return f"Went on from step {race.gates[0]:,} and improved since: {listed(won)}{unit}."


def _finishers(race: Race) -> list[Racer]:
    return [
        racer
        for racer in race.racers
        if at_gate(racer, 0) is not None and at_gate(racer, len(race.gates) - 1) is not None
    ]


def swapped_pairs(race: Race) -> tuple[int, int]:
    """Pairs of finishers whose order at the first gate and at the end differ, and pairs in all; ties are no change."""
    pairs = list(combinations(_finishers(race), 2))
    last = len(race.gates) - 1
    turned = sum(
        ((at_gate(x, 0) or 0.0) - (at_gate(y, 0) or 0.0)) * ((at_gate(x, last) or 0.0) - (at_gate(y, last) or 0.0))
        < 0.0
        for x, y in pairs
    )
    return turned, len(pairs)


def _order(race: Race) -> str:
    """Whether the first gate foretold the end among those that came there."""
    swapped, pairs = swapped_pairs(race)
    if len(race.gates) < 2 or not pairs:
        return ""
    sign, last = race.sign, len(race.gates) - 1
    orders = [
        [r.seed for r in sorted(_finishers(race), key=lambda r: (sign * (at_gate(r, gate) or 0.0), r.seed))]
        for gate in (0, last)
    ]
    texts = [", ".join(map(str, order)) for order in orders]
    held = "held" if not swapped else f"did not hold: {swapped} of {counted(pairs, 'pair')} changed places"
    return f"Order of the finishers at the first gate: {texts[0]}; at the end: {texts[1]}. It {held}."


def _cost(race: Race) -> str:
    return f"Cost: {race.steps:,} steps, {duration(race.seconds)} of compute time."
