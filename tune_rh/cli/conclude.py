"""What a finished run says in the end: printed, exported to ``best/``, and for races and comparisons a report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from rich.console import Console

from analysis.baselines import kept, measure
from analysis.diagnose.api import Baseline
from analysis.view import Member, Run
from trainables.api import test_metric
from tune_rh.cli import terminal
from tune_rh.decide import comparison as compare
from tune_rh.errors import ExportError
from tune_rh.export import export
from tune_rh.plan import kinds
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.members import Candidate
from tune_rh.results.reading import Reading, read_provenance
from tune_rh.results.reporting import about_run, unit, write
from tune_rh.run.runs import companions, dataset

if TYPE_CHECKING:
    from analysis.reports.comparison.report import Bisection, Comparison, Side
    from analysis.reports.race.report import Race


def conclude(paths: RunPaths, history: History, data_dir: Path, to: Console) -> None:
    """Say what came of the run, by its kind, and leave its files."""
    reading = Reading(paths, history, is_written=True, provenance=read_provenance(paths))
    to.print()
    {"search": _conclude_search, "race": _conclude_race, "comparison": _conclude_comparison}[reading.run.kind](
        reading, data_dir, to
    )
    about = about_run(reading.run)
    if about.findings:
        to.print(terminal.findings_table("the whole run", about.findings))
    to.print(f"Report: {write(reading, data_dir, about=about)}", soft_wrap=True)


def _conclude_search(reading: Reading, data_dir: Path, to: Console) -> None:
    history, run = reading.history, reading.run
    to.print(terminal.funnel_table(history.plan, run.funnel))
    to.print(terminal.ranking_table(history.plan, run.ranking))
    to.print(terminal.cost_line(history), soft_wrap=True)
    if not any(row.may_win for row in run.ranking):
        to.print("No candidate finished with a finite score: nothing to export.")
        return
    baselines = run_baselines(reading.paths, history, data_dir, keep=True)
    if baselines:
        to.print(terminal.baselines_table(baselines, run.best, run.sign))
        to.print(terminal.baselines_line(baselines, run.ranking, run.best, run.sign), soft_wrap=True)
    _export(reading, data_dir, to, baselines)


def run_baselines(paths: RunPaths, history: History, data_dir: Path, *, keep: bool) -> Sequence[Baseline]:
    """The baselines on the run's data: as they were kept beside its report, else made, and then kept if ``keep``."""
    first = next(iter(history.candidates.values()), None)  # whose targets the baselines are scored on: everybody's
    config = None if first is None else first.added.config
    return kept(
        paths.report / "baselines.json",  # the report reads it there
        "" if history.created is None else history.created.data_digest,
        lambda: measure(history.plan.family, dataset(history.plan), data_dir, config),
        keep=keep,
    )


def _conclude_race(reading: Reading, data_dir: Path, to: Console) -> None:
    from analysis.reports.race import report as race

    for line in race.lines(as_race(reading.run)):
        to.print(line, soft_wrap=True)
    if any(member.tested is not None for member in reading.run.members.values()):
        _export(reading, data_dir, to, ())


def _conclude_comparison(reading: Reading, data_dir: Path, to: Console) -> None:
    from analysis.reports.comparison import report as comparison

    for line in comparison.lines(as_comparison(reading.run, reading.history)):
        to.print(line, soft_wrap=True)


def _export(reading: Reading, data_dir: Path, to: Console, baselines: Sequence[Baseline]) -> None:
    paths, history = reading.paths, reading.history
    shutil.rmtree(paths.best, ignore_errors=True)
    try:
        chosen = export(paths, history, paths.best, baselines=baselines, companions=companions(history.plan, data_dir))
    except ExportError as error:
        to.print(f"Nothing exported: {error}", soft_wrap=True)
        return
    to.print(f"Best: {chosen.candidate} ({chosen.label})", soft_wrap=True)
    to.print(
        f"Exported to {paths.best}; `tune-rh export {paths.root.name} --out DIR` copies it elsewhere.", soft_wrap=True
    )


def as_race(run: Run) -> Race:
    """The race as its report needs it."""
    from analysis.reports.race.report import Race, Racer

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
        family=run.plan["family"],
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


def as_comparison(run: Run, history: History) -> Comparison:
    """The comparison as its report needs it."""
    from analysis.reports.comparison.report import Comparison

    plan, both = history.plan, compare.sides(history)
    assert isinstance(plan, kinds.Comparison)
    assert both is not None
    return Comparison(
        run=run.root.name,
        family=plan.family,
        objective=plan.objective,
        unit=unit(plan.family),
        mode=plan.mode,
        until_step=plan.stages[0].until_step,
        a=_side(run, history, both[0], compare.suspects(history)),
        b=_side(run, history, both[1], compare.suspects(history)),
        claim=compare.claim(history),
        test=plan.compare.test,
        alpha=plan.compare.alpha,
        region=plan.compare.region,
        tests=_tests(history, both),
        bisection=_bisection(history) if plan.compare.bisect else None,
        command=f"tune-rh ab {run.root / 'plan.toml'}",
    )


def _side(run: Run, history: History, side: Candidate, keys: tuple[str, ...]) -> Side:
    from analysis.reports.comparison.report import Side

    fields = compare.fields(side)
    both = compare.sides(history)
    assert both is not None
    seeds = compare.pairs(history, *both).seeds
    members = [side.members[seed] for seed in history.plan.stage_seeds(0)]
    return Side(
        name=side.added.label,
        config_summary=", ".join(f"{key}={fields.get(key)}" for key in keys),
        values={m.id.seed: None if m.value is None else history.shown(m.value) for m in members if m.id.seed in seeds},
        curves={m.id.seed: _curve(run.members[str(m.id)]) for m in members},
        steps=sum(m.step for m in members),
        seconds=sum(m.slot_seconds for m in members),
    )


def _bisection(history: History) -> Bisection | None:
    from analysis.reports.comparison.report import Bisection, Probe

    plan, both, state = history.plan, compare.sides(history), compare.bisection(history)
    assert isinstance(plan, kinds.Comparison)
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


def _curve(member: Member) -> list[tuple[int, float]]:
    return [(report.step, report.value) for report in member.reports]
