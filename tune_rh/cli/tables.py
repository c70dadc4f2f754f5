"""What a person sees of a run: its tables. Only words; the console is elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from analysis.baselines import unbeaten, within
from analysis.diagnose.api import Baseline
from analysis.reports.tables import duration
from analysis.view import FunnelRow, Run, Standing, why_no_best
from trainables.given.module import called
from trainables.knowledge import knowledge_of
from tune_rh.plan.cost import StageCost, follow_up_steps, ungated_steps
from tune_rh.plan.follow_ups import changes, label
from tune_rh.plan.kinds import Comparison, Search
from tune_rh.plan.schema import Plan
from tune_rh.record.failure import describe_loss
from tune_rh.record.history import History
from tune_rh.record.members import Candidate, Member
from tune_rh.record.ranking import describe, spent

_ROWS, _LOSSES = 16, 3
_MANY_SILENT = 3  # findings without evidence share a row from here on


def progress(history: History, began: float) -> Group:
    elapsed = time.monotonic() - began
    more = f" and {len(history.follow_ups)} follow-ups" if history.follow_ups else ""
    head = Text(
        f"{history.plan.name}: {history.num_candidates()}/{history.plan.num_candidates} candidates{more}, "
        f"{len(history.running)}/{history.slots} slots busy, {history.steps_spent} steps, {duration(elapsed)}"
    )
    losses = (Text(describe_loss(event)) for event in history.losses.all[-_LOSSES:])
    return Group(head, candidates_table(history, limit=_ROWS), *losses)


def candidates_table(history: History, limit: int | None = None) -> Table:
    """All candidates: those that got furthest first, then by score."""
    table = Table("", "candidate", "stage", *(f"s{seed}" for seed in history.plan.seeds), box=None, pad_edge=False)
    rows = sorted(history.candidates.values(), key=lambda c: (c.index > 0, -c.stage, _mean(c.members.values())))
    for candidate in rows[:limit]:
        stage = max((m.stage for m in candidate.members.values()), default=0)
        until = history.plan.stages[stage].until_step
        cells = [
            _member_cell(history, candidate.members[seed]) if seed in candidate.members else ""
            for seed in history.plan.seeds
        ]
        barred = f" [{candidate.barred}]" if candidate.barred else ""
        table.add_row(
            candidate.id, Text(describe(candidate)[:72] + _knows(history, candidate) + barred), f"->{until}", *cells
        )
    if limit is not None and len(rows) > limit:
        table.add_row("", f"... and {len(rows) - limit} more", "")
    return table


def alarm_lines(run: Run) -> list[str]:
    """What live health has found, the latest of each member last; so many lines as fit a screen."""
    members = run.members.values()
    lines = [f"{m.id}  {rule} at step {step}: {text}" for m in members for rule, step, text in m.alarms]
    more = len(lines) - _ROWS
    return lines if more <= 0 else [*lines[:_ROWS], f"... and {more} more; the report has all"]


def funnel_table(plan: Plan, rows: Sequence[FunnelRow]) -> Table:
    """How many entered, were scored at and passed each gate; audited and lost ones where there are any."""
    left_out = "control and references" if any(origin == "reference" for _, origin in plan.named) else "control"
    rare = [name for name in ("audited", "lost_seeds") if any(getattr(row, name) for row in rows)]
    names = ("until_step", "num_seeds", "entered", "scored", "passed", *rare)
    header = ("until step", "seeds", *(name.replace("_", " ") for name in names[2:]))
    table = Table("stage", *header, title=f"Funnel ({left_out} left out)")
    for i, row in enumerate(rows):
        table.add_row(str(i + 1), *(str(getattr(row, name)) for name in names))
    return table


def ranking_table(plan: Plan, rows: Sequence[Standing]) -> Table:
    """Those that finished, with their spread over seeds, val beside test."""
    sign = "+" if plan.mode == "min" else "-"
    header = ("", "candidate", "seeds", f"{plan.objective} (mean ± std)", "test (mean ± std)")
    says = any(row.knowledge for row in rows)
    title = f"Ranking of those that finished (by mean {sign} 1 SE on val)"
    table = Table(*header, *(["may know"] if says else []), title=title)
    for row in rows:
        cells = (row.candidate, row.label, _seeds(row), _pm(row.val, row.std), _pm(row.test, row.test_std))
        table.add_row(*cells, *([str(row.knowledge or "")] if says else []))
    return table


def baselines_table(baselines: Sequence[Baseline], best: Standing | None, sign: float = 1.0) -> Table:
    """Baselines on the run's own data with the best candidate among them, worst first."""
    lower, says = sign > 0.0, any(row.knowledge for row in baselines)
    header = ("predictor", "test", *(["may know"] if says else []), "note")
    table = Table(*header, title=f"Baselines ({'lower' if lower else 'higher'} is better)")
    rows = [(row.value, row.name, str(row.knowledge or ""), row.note, False) for row in baselines]
    if best is not None and not math.isnan(best.test):
        note = f"this run's best, mean of {best.num_seeds} seeds"
        rows.append((best.test, best.candidate, str(best.knowledge or ""), note, True))
    for value, name, knows, note, ours in sorted(rows, reverse=lower):
        cells = (name, f"{value:.4f}", *([knows] if says else []), note)
        table.add_row(*cells, style="bold" if ours else "")
    return table


def baselines_line(
    baselines: Sequence[Baseline], ranking: Sequence[Standing], best: Standing | None, sign: float = 1.0
) -> str:
    """How many baselines the best candidate beats, and which it does not; or why there is no best."""
    if best is None:
        why = why_no_best(ranking)
        return f"{why[0].upper()}{why[1:]}."
    fair, beyond = within(baselines, best.knowledge)
    better = unbeaten(fair, best.test, sign)
    rest = f"; better than it: {'; '.join(better)}" if better else ""
    what = f"baselines of its class ({best.knowledge})" if best.knowledge else "baselines"
    line = f"On test {best.candidate} beats {len(fair) - len(better)} of {len(fair)} {what}{rest}."
    if beyond:
        above = unbeaten(beyond, best.test, sign)
        line += f" Of {len(beyond)} that know more it beats {len(beyond) - len(above)}."
    return line


def findings_table(member: str, findings: Sequence[Any]) -> Table:
    """The findings on one member."""
    table = Table("diagnostic", "verdict", "what it means", title=member)
    styles = {"fail": "bold red", "warn": "yellow", "no_evidence": "dim"}
    silent = [finding for finding in findings if finding.verdict == "no_evidence"]
    for finding in findings:
        if len(silent) < _MANY_SILENT or finding not in silent:
            table.add_row(finding.name, Text(finding.verdict, styles.get(finding.verdict, "")), finding.summary)
    if len(silent) >= _MANY_SILENT:
        reasons = " ".join(dict.fromkeys(finding.summary for finding in silent))
        table.add_row(", ".join(f.name for f in silent), Text("no_evidence", styles["no_evidence"]), reasons)
    return table


def cost_line(history: History) -> str:
    """Steps and time spent, against running everything to the end."""
    cost = spent(history)
    if isinstance(history.plan, Comparison):
        return f"Spent {cost.steps} steps, {duration(cost.slot_seconds)} of compute time."
    share = cost.steps / cost.ungated_steps if cost.ungated_steps else 0.0
    all_candidates = f"all {len(history.candidates)} candidates, all seeds,"
    everything = "every seed" if history.plan.members_compete else all_candidates
    return (
        f"Spent {cost.steps} steps, {duration(cost.slot_seconds)} of compute time. Running {everything} to the end: "
        f"{cost.ungated_steps} steps, about {duration(cost.ungated_slot_seconds)}; spent {share:.0%} of its steps."
    )


def print_plan(plan: Plan, costs: Sequence[StageCost], to: Console) -> None:
    """What ``--dry-run`` shows."""
    to.print(f"{plan.name}: {called(plan.family)}, {_kind(plan)}")
    table = Table("stage", "until step", "seeds", "candidates", "members", "steps", title="Expected (control included)")
    for i, row in enumerate(costs):
        seeds = "" if plan.members_compete else f"{row.num_seeds}: {', '.join(map(str, plan.stage_seeds(i)))}"
        cells = (i + 1, row.until_step, seeds, row.num_candidates, row.num_members, row.steps)
        table.add_row(*map(str, cells))
    to.print(table)
    total, full = sum(row.steps for row in costs), ungated_steps(plan)
    if isinstance(plan, Comparison):
        midpoints = f"; a bisection may run {plan.compare.max_probes} configs more" if plan.compare.bisect else ""
        to.print(f"At most {total} steps for A and B{midpoints}.")
        return
    if isinstance(plan, Search):
        _print_follow_ups(plan, to)
    to.print(f"About {total} steps if each gate promotes its quota; {full} without gates ({total / full:.0%}).")
    if isinstance(plan, Search) and plan.gates == "adaptive":
        spends = f", and spend the budget of {plan.budget.max_steps} steps to its end" if plan.budget.max_steps else ""
        to.print(f"Gates learn how many go on{spends}.")


def _print_follow_ups(plan: Search, to: Console) -> None:
    for change in changes(plan):
        table = change.follow_up
        ranked = f", ranked from gate {table.enters + 1} on" if table.enters else ""
        to.print(f"After gate {table.after + 1}: {label('its winner', change.fields)}{ranked}.", soft_wrap=True)
    if plan.follow_ups:
        to.print(f"Follow-ups are about {follow_up_steps(plan)} of the steps.")


def _kind(plan: Plan) -> str:
    if isinstance(plan, Comparison):
        return (
            f"B = {plan.presets[0]} against A = {plan.control}, test {plan.compare.test}, alpha {plan.compare.alpha:g}"
        )
    if not isinstance(plan, Search):
        return f"a race of {len(plan.seeds)} seeds ({', '.join(map(str, plan.seeds))}) of {plan.control}"
    beside = f", references {', '.join(plan.references)}" if plan.references else ""
    named = f"control {plan.control}{beside}"
    return f"space {plan.space}, {named}, sampler {plan.sampler.name}" if plan.space else f"named configs, {named}"


def _member_cell(history: History, member: Member) -> str:
    best = f"{history.shown(member.curve.best):.3f}" if math.isfinite(member.curve.best) else "no value"
    marks = {"running": " …", "diverged": " ✗", "failed": " ✗", "stopped": " ■", "completed": " ✓"}
    if not member.step:
        return f"no report{marks.get(member.status, '')}"
    return f"{best}@{member.step}{marks.get(member.status, '')}"


def _knows(history: History, candidate: Candidate) -> str:
    known = knowledge_of(history.plan.family, candidate.added.config)
    return f" [{known}]" if known else ""


def _mean(members: Any) -> float:
    values = [m.curve.best for m in members if math.isfinite(m.curve.best)]
    return sum(values) / len(values) if values else math.inf


def _seeds(row: Standing) -> str:
    notes = [f"{row.num_lost} lost"] if row.num_lost else []
    notes += [] if row.entry.successes is None else [f"{row.entry.successes} good"]
    return f"{row.num_seeds}" + (f" ({', '.join(notes)})" if notes else "")


def _pm(mean: float, std: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.4f}" if math.isnan(std) else f"{mean:.4f} ± {std:.4f}"
