"""Races and comparisons as their own reports need them, from a run as it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from analysis.reports.comparison.bisection import Bisection, Midpoint
from analysis.reports.comparison.facts import Comparison, Side
from analysis.reports.race.facts import Race, Racer
from analysis.view import Member, Run
from trainables.api import test_metric
from trainables.errors import UnknownFamily
from trainables.given.module import called
from trainables.registry import get_family
from trainables.spelling import meant
from tune_rh.decide import comparison as compare
from tune_rh.plan import kinds
from tune_rh.record.history import History
from tune_rh.record.members import Candidate


def unit(family: str) -> str:
    """Of the family's objective; empty for a plain number (``1``), and for a family that is not there."""
    try:
        name = get_family(family).objective.unit
    except UnknownFamily:
        return ""
    return "" if name == "1" else name


def own_report(run: Run, history: History) -> tuple[Any, Any] | None:
    """Module and facts of the report of a race or a comparison; None for a search, and before its sides are there."""
    from analysis.reports.comparison import report as comparison
    from analysis.reports.race import report as race

    if run.kind == "race" and run.candidates:
        return race, _as_race(run)
    if run.kind == "comparison" and len(run.candidates) > 1:
        return comparison, _as_comparison(run, history)
    return None


def _as_race(run: Run) -> Race:
    (candidate,) = run.candidates.values()
    racers = []
    for seed, member in candidate.members.items():
        at_gates = [entry.values[seed] for entries in run.gates for entry in entries if entry.seed == seed]
        racers.append(
            Racer(
                seed=seed,
                at_gates=tuple(at_gates),
                best=None if math.isnan(member.best) else member.best,
                best_step=member.best_step or 0,
                steps=member.steps,
                status=member.status,
                passed=member.stage,
                test=(member.tested or {}).get(run.test_metric),
                curve=_curve(member),
            )
        )
    return Race(
        run=run.root.name,
        family=called(run.plan["family"]),
        config=run.plan["control"],
        objective=run.objective,
        unit=unit(run.plan["family"]),
        mode=run.plan["mode"],
        gates=tuple(stage["until_step"] for stage in run.stages),
        keep=tuple(stage["top"] or 0 for stage in run.stages[:-1]),
        racers=tuple(racers),
        success=run.plan["scoring"]["success"],
        seconds=run.spent.slot_seconds,
        steps=run.spent.steps,
    )


def _as_comparison(run: Run, history: History) -> Comparison:
    plan, (a, b), claim = history.plan, compare.sides(history), compare.claim(history)
    assert isinstance(plan, kinds.Comparison)
    return Comparison(
        run=run.root.name,
        family=called(plan.family),
        objective=plan.objective,
        unit=unit(plan.family),
        mode=plan.mode,
        until_step=plan.stages[0].until_step,
        a=_side(run, history, a),
        b=_side(run, history, b),
        claim=claim,
        test=plan.compare.test,
        alpha=plan.compare.alpha,
        region=plan.compare.region,
        tests=_tests(history),
        bisection=_bisection(history) if plan.compare.bisect else None,
        command=f"tune-rh ab {run.root / 'plan.toml'}",
    )


def _side(run: Run, history: History, side: Candidate) -> Side:
    fields = meant(compare.fields(side))
    seeds = compare.pairs(history, *compare.sides(history)).seeds
    members = [side.members[seed] for seed in history.plan.stage_seeds(0)]
    return Side(
        name=side.added.label,
        config_summary=", ".join(f"{key}={fields.get(key)}" for key in compare.suspects(history)),
        values={m.id.seed: None if m.value is None else history.shown(m.value) for m in members if m.id.seed in seeds},
        curves={m.id.seed: _curve(run.members[str(m.id)]) for m in members},
        steps=sum(m.step for m in members),
        seconds=sum(m.slot_seconds for m in members),
    )


def _bisection(history: History) -> Bisection | None:
    plan, state, suspects = history.plan, compare.bisection(history), compare.suspects(history)
    assert isinstance(plan, kinds.Comparison)
    if state is None:
        return None
    midpoints = []
    for candidate in compare.midpoints(history):
        claim = compare.midpoint_claim(history, candidate)
        midpoints.append(
            Midpoint(
                keys=tuple(sorted(compare.keys_of(history, candidate))),
                outcome=compare.outcome(history, candidate),
                position=compare.position(history, candidate),
                num_seeds=claim.num_pairs,
                sure=claim.verdict != "undecided",
                steps=sum(m.step for m in candidate.members.values()),
            )
        )
    a, b = (meant(compare.fields(side)) for side in compare.sides(history))
    done = not state.wanted
    return Bisection(
        suspects=suspects,
        causes=tuple(tuple(sorted(cause)) for cause in state.causes),
        remaining=tuple(sorted(state.remaining)),
        done=done,
        midpoints=tuple(midpoints),
        max_probes=plan.compare.max_probes,
        values_a={key: a.get(key) for key in suspects},
        values_b={key: b.get(key) for key in suspects},
        rest_carries=state.rest_carries,
        note="" if done else f"stopped after max_probes = {plan.compare.max_probes} midpoints",
    )


def _tests(history: History) -> Mapping[str, tuple[float, float]]:
    """Mean and standard deviation on test of each side whose test was read, over the pairs."""
    key, both = test_metric(history.plan.objective), compare.sides(history)
    tests = {}
    seeds = compare.pairs(history, *both).seeds
    for name, side in zip("ab", both, strict=True):
        members = [side.members[seed] for seed in seeds]
        values = [m.tested.metrics[key] for m in members if m.tested and key in m.tested.metrics]
        if values:
            tests[name] = (fmean(values), stdev(values) if len(values) > 1 else math.nan)
    return tests


def _curve(member: Member) -> list[tuple[int, float]]:
    return [(report.step, report.value) for report in member.reports]
