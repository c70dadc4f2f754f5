"""What a finished run says in the end: printed, exported to ``best/``, and for races and comparisons a report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console

from analysis import baselines
from trainables.api import test_metric
from trainables.registry import get_family
from tune_rh import compare, display
from tune_rh.errors import ExportError
from tune_rh.export import export
from tune_rh.history import History
from tune_rh.journal import RunPaths
from tune_rh.members import Candidate, Member
from tune_rh.runs import companions, dataset
from tune_rh.summary import contenders

if TYPE_CHECKING:
    from analysis.reports.comparison import Bisection, Comparison, Side
    from analysis.reports.race import Race


def conclude(paths: RunPaths, history: History, data_dir: Path, to: Console) -> None:
    """Say what came of the run, by its kind, and leave its files."""
    to.print()
    if history.plan.compare is not None:
        _conclude_comparison(paths, history, data_dir, to)
    elif history.plan.unit == "member":
        _conclude_race(paths, history, data_dir, to)
    else:
        _conclude_search(paths, history, data_dir, to)


def _conclude_search(paths: RunPaths, history: History, data_dir: Path, to: Console) -> None:
    to.print(display.funnel_table(history))
    to.print(display.ranking_table(history))
    to.print(display.cost_line(history), soft_wrap=True)
    kept = contenders(history)
    if not kept:
        to.print("No candidate finished with a finite score: nothing to export.")
        return
    ladder = run_ladder(paths, history, data_dir, keep=True)
    if ladder:
        to.print(display.ladder_table(ladder, kept[0]))
        to.print(display.ladder_line(ladder, kept[0]), soft_wrap=True)
    _export(paths, history, data_dir, to, ladder)
    _say_page(paths, data_dir, to)


def run_ladder(paths: RunPaths, history: History, data_dir: Path, *, keep: bool) -> Sequence[Any]:
    """The baselines on the run's data: as they were kept beside its report, else made, and then kept if ``keep``."""
    first = next(iter(history.candidates.values()), None)  # whose targets the baselines are scored on: everybody's
    config = None if first is None else first.added.config
    return baselines.kept(
        paths.report / "baselines.json",  # the report reads it there
        "" if history.created is None else history.created.data_digest,
        lambda: baselines.measure(history.plan.family, dataset(history.plan), data_dir, config),
        keep=keep,
    )


def _conclude_race(paths: RunPaths, history: History, data_dir: Path, to: Console) -> None:
    from analysis.reports import race

    found = as_race(paths, history)
    for line in race.lines(found):
        to.print(line, soft_wrap=True)
    race.write(found, paths.report)
    if any(member.tested for c in history.candidates.values() for member in c.members.values()):
        _export(paths, history, data_dir, to, ())
    _say_page(paths, data_dir, to)


def _conclude_comparison(paths: RunPaths, history: History, data_dir: Path, to: Console) -> None:
    from analysis.reports import comparison

    found = as_comparison(paths, history)
    for line in comparison.lines(found):
        to.print(line, soft_wrap=True)
    comparison.write(found, paths.report)
    _say_page(paths, data_dir, to)


def _say_page(paths: RunPaths, data_dir: Path, to: Console) -> None:
    from tune_rh.reporting import about_run, write

    about = about_run(paths)
    if about.findings:
        to.print(display.findings_table("the whole run", about.findings))
    to.print(f"Report: {write(paths, data_dir)}", soft_wrap=True)


def _export(paths: RunPaths, history: History, data_dir: Path, to: Console, ladder: Any) -> None:
    shutil.rmtree(paths.best, ignore_errors=True)
    try:
        chosen = export(paths, history, paths.best, ladder=ladder, companions=companions(history.plan, data_dir))
    except ExportError as error:
        to.print(f"Nothing exported: {error}", soft_wrap=True)
        return
    to.print(f"Best: {chosen.candidate} ({chosen.label})", soft_wrap=True)
    to.print(
        f"Exported to {paths.best}; `tune-rh export {paths.root.name} --out DIR` copies it elsewhere.", soft_wrap=True
    )


def as_race(paths: RunPaths, history: History) -> Race:
    """The race as its report needs it."""
    from analysis.reports.race import Race, Racer

    plan = history.plan
    (candidate,) = history.candidates.values()
    key = test_metric(plan.objective)
    racers = []
    for seed, member in candidate.members.items():
        gates = [gate.values(i).get(seed) for gate in history.gates if gate.has(i := plan.seeds.index(seed))]
        racers.append(
            Racer(
                seed=seed,
                at_gates=tuple(None if value is None else history.shown(value) for value in gates),
                best=None if member.value is None else history.shown(member.value),
                best_step=member.curve.best_step,
                steps=member.step,
                status="parked" if member.status == "idle" else member.status,
                passed=member.stage,
                test=member.tested.metrics.get(key) if member.tested else None,
                curve=_curve(history, member),
            )
        )
    return Race(
        run=paths.root.name,
        family=plan.family,
        config=plan.control,
        objective=plan.objective,
        unit=get_family(plan.family).objective.unit,
        mode=plan.mode,
        gates=tuple(stage.until_step for stage in plan.stages),
        keep=tuple(stage.top or 0 for stage in plan.stages[:-1]),
        racers=tuple(racers),
        success=plan.scoring.success,
        seconds=history.slot_seconds,
        steps=history.steps_spent,
    )


def as_comparison(paths: RunPaths, history: History) -> Comparison:
    """The comparison as its report needs it."""
    from analysis.reports.comparison import Comparison

    plan, both = history.plan, compare.sides(history)
    assert plan.compare is not None
    assert both is not None
    return Comparison(
        run=paths.root.name,
        family=plan.family,
        objective=plan.objective,
        unit=get_family(plan.family).objective.unit,
        mode=plan.mode,
        until_step=plan.stages[0].until_step,
        a=_side(history, both[0], compare.suspects(history)),
        b=_side(history, both[1], compare.suspects(history)),
        claim=compare.claim(history),
        test=plan.compare.test,
        alpha=plan.compare.alpha,
        region=plan.compare.region,
        tests=_tests(history, both),
        bisection=_bisection(history) if plan.compare.bisect else None,
        command=f"tune-rh ab {paths.plan}",
    )


def _side(history: History, side: Candidate, keys: tuple[str, ...]) -> Side:
    from analysis.reports.comparison import Side

    fields = compare.fields(side)
    both = compare.sides(history)
    assert both is not None
    seeds = compare.pairs(history, *both).seeds
    members = [side.members[seed] for seed in history.plan.stage_seeds(0)]
    return Side(
        name=side.added.label,
        config_summary=", ".join(f"{key}={fields.get(key)}" for key in keys),
        values={m.id.seed: None if m.value is None else history.shown(m.value) for m in members if m.id.seed in seeds},
        curves={m.id.seed: _curve(history, m) for m in members},
        steps=sum(m.step for m in members),
        seconds=sum(m.slot_seconds for m in members),
    )


def _bisection(history: History) -> Bisection | None:
    from analysis.reports.comparison import Bisection, Probe

    plan, both, state = history.plan, compare.sides(history), compare.bisection(history)
    assert plan.compare is not None
    assert both is not None
    suspects = compare.suspects(history)
    if state is None:
        return None
    probes = []
    for candidate in list(history.candidates.values())[2:]:
        claim = compare.probe_claim(history, candidate)
        probes.append(
            Probe(
                keys=tuple(sorted(compare.keys_of(history, candidate))),
                outcome=compare.outcome(history, candidate),
                position=compare.position(history, candidate),
                num_seeds=claim.num_pairs,
                sure=claim.verdict != "undecided",
                steps=sum(m.step for m in candidate.members.values()),
            )
        )
    a, b = map(compare.fields, both)
    done = not state.wanted
    return Bisection(
        suspects=suspects,
        causes=tuple(tuple(sorted(cause)) for cause in state.causes),
        remaining=tuple(sorted(state.remaining)),
        done=done,
        probes=tuple(probes),
        max_probes=plan.compare.max_probes,
        values_a={key: a.get(key) for key in suspects},
        values_b={key: b.get(key) for key in suspects},
        rest_carries=state.rest_carries,
        note="" if done else f"stopped after max_probes = {plan.compare.max_probes} probes",
    )


def _tests(history: History, both: tuple[Candidate, Candidate]) -> Mapping[str, tuple[float, float]]:
    key = test_metric(history.plan.objective)
    found = {}
    seeds = compare.pairs(history, *both).seeds
    for name, side in zip("ab", both, strict=True):
        members = [side.members[seed] for seed in seeds]
        values = [m.tested.metrics[key] for m in members if m.tested and key in m.tested.metrics]
        if values:
            found[name] = (fmean(values), stdev(values) if len(values) > 1 else math.nan)
    return found


def _curve(history: History, member: Member) -> list[tuple[int, float]]:
    return [(step, history.shown(value)) for step, value in zip(member.curve.steps, member.curve.values, strict=True)]
