"""What a search found, as plain data from its history: funnel, ranking over seeds, cost. Printing is elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from trainables.api import test_metric
from tune_rh import cost
from tune_rh.events import MemberId
from tune_rh.history import History
from tune_rh.members import Candidate, Member


@dataclass(frozen=True)
class FunnelStage:
    """How many candidates entered a stage, were scored at its gate and passed it; control and references left out."""

    until_step: int
    num_seeds: int
    entered: int
    scored: int
    passed: int


@dataclass(frozen=True)
class Ranked:
    """A candidate that finished the last stage.

    Attributes:
        candidate: its id.
        label: the preset's name, ``control: name``, or what was drawn.
        num_seeds, num_lost: seeds asked for, and those that diverged or failed.
        val, val_se: the score over seeds of each seed's best, and its standard error, with the variance moderated over
            all that finished (NaN where there is nothing to tell it from).
        val_std: standard deviation over seeds.
        pessimistic: ``val`` one standard error to the worse: what the ranking goes by. With ``best_of_k`` the score.
        test, test_std: the same checkpoints on test.
        successes: seeds that found the good minimum, where a line is drawn.
        is_reference: whether it ran for comparison only, and is never the best.
    """

    candidate: str
    label: str
    num_seeds: int
    num_lost: int
    val: float
    val_std: float
    val_se: float
    pessimistic: float
    test: float
    test_std: float
    successes: int | None = None
    is_reference: bool = False


@dataclass(frozen=True)
class Spent:
    """Steps and slot seconds spent, beside an estimate for running every candidate to the end with all seeds."""

    steps: int
    slot_seconds: float
    ungated_steps: int
    ungated_slot_seconds: float


def funnel(history: History) -> list[FunnelStage]:
    """One row a stage."""
    plan = history.plan
    others = [c for c in history.candidates.values() if c.index and not c.is_reference]
    rows = []
    for k, stage in enumerate(plan.stages):
        gate = history.gates[k]
        entered = sum(c.stage >= k for c in others)
        guests = [c for c in others if c.index in gate.guests]
        scored = len(gate.order) + len(guests)
        passed = gate.num_promoted + sum(c.stage > k for c in guests) if k < plan.last_stage else scored
        rows.append(FunnelStage(stage.until_step, stage.num_seeds, entered, scored, passed))
    return rows


def ranking(history: History) -> list[Ranked]:
    """Those that finished the last stage, control and references included, best first by the pessimistic bound.

    Of a race: its one config, over the members that ran to the end.
    """
    plan = history.plan
    if plan.unit == "member":
        rows = [_rank_race(history, c) for c in history.candidates.values()]
        return [row for row in rows if row.num_seeds]
    finished = [c for c in history.candidates.values() if c.stage == plan.last_stage and history.is_complete(c)]
    rows = [_rank(history, c) for c in finished]
    sign = 1.0 if history.plan.mode == "min" else -1.0
    return sorted(rows, key=lambda r: (math.isnan(r.pessimistic), sign * r.pessimistic, r.candidate))


def contenders(history: History) -> list[Ranked]:
    """Those of the ranking that may be the best: some seed came through, and they are no reference."""
    return [row for row in ranking(history) if row.num_lost < row.num_seeds and not row.is_reference]


def spent(history: History) -> Spent:
    """Cost so far. A candidate's seconds per step are its own, so that slow configs count as slow."""
    last = history.plan.stages[-1]
    steps = history.steps_spent
    mean_rate = history.slot_seconds / steps if steps else 0.0
    seconds = 0.0
    for candidate in history.candidates.values():
        done = sum(m.step for m in candidate.members.values())
        took = sum(m.slot_seconds for m in candidate.members.values())
        seconds += last.num_seeds * last.until_step * (took / done if done else mean_rate)
    ungated = cost.ungated_steps(history.plan, len(history.candidates))
    return Spent(steps, history.slot_seconds, ungated, seconds)


def best_member(history: History, candidate: str) -> MemberId:
    """The candidate's seed with the best value on val; raises ValueError if all were lost."""
    members = [m for m in history.candidates[candidate].members.values() if m.value is not None]
    if history.plan.unit == "member":
        # One that was left at a gate may have been better there, but only those at the end were tested.
        members = [m for m in members if m.stage == history.plan.last_stage]
    return min(members, key=lambda m: m.curve.best).id


def failed_requirements(history: History, candidate: str) -> list[str]:
    """The diagnostics that the plan requires and that at least half of the candidate's seeds fail.

    One that was not looked at, or whose diagnosis raised, has not shown that it passes: it counts as failing.
    """
    looked_at = [m.diagnosed.verdicts for m in history.candidates[candidate].members.values() if m.diagnosed]
    return [
        name
        for name in history.plan.require
        if 2 * sum(verdicts.get(name, "fail") == "fail" for verdicts in looked_at) >= len(looked_at)
    ]


def describe(candidate: Candidate) -> str:
    """A preset's name, of a follow-up its winner and what is changed, or the drawn parameters."""
    if candidate.added.origin in ("control", "reference", "follow_up"):
        return f"{candidate.added.origin.replace('_', '-')}: {candidate.added.label}"
    return candidate.added.label or drawn(candidate.added.params)


def drawn(params: Mapping[str, object]) -> str:
    """``lr=0.0021 layout=postfix``."""
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def _rank(history: History, candidate: Candidate) -> Ranked:
    members = [candidate.members[seed] for seed in history.plan.stage_seeds(history.plan.last_stage)]
    gate = history.gates[-1]
    is_control = candidate is history.control
    score = gate.control_score() if is_control else gate.score(candidate.index)
    se, _ = gate.control_error() if is_control else gate.error(candidate.index)
    successes = gate.successes(candidate.index if not is_control else None)
    row = _row(history, candidate, members, math.nan if score is None else score, se, successes)
    if history.plan.scoring.objective == "best_of_k":
        row = replace(row, pessimistic=row.val)
    return row


def _rank_race(history: History, candidate: Candidate) -> Ranked:
    members = [m for m in candidate.members.values() if m.stage == history.plan.last_stage]
    values = [m.value for m in members if m.value is not None]
    se = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return _row(history, candidate, members, fmean(values) if values else math.nan, se, None)


def _row(
    history: History, candidate: Candidate, members: Sequence[Member], score: float, se: float, successes: int | None
) -> Ranked:
    kept = [m for m in members if m.value is not None]
    val = history.shown(score)
    values = [history.shown(m.curve.best) for m in kept]
    std = stdev(values) if len(values) > 1 else math.nan
    key = test_metric(history.plan.objective)
    tests = [m.tested.metrics[key] for m in kept if m.tested is not None and key in m.tested.metrics]
    worse = 1.0 if history.plan.mode == "min" else -1.0
    return Ranked(
        candidate=candidate.id,
        label=describe(candidate),
        num_seeds=len(members),
        num_lost=len(members) - len(kept),
        val=val,
        val_std=std,
        val_se=se,
        pessimistic=val if math.isnan(se) else val + worse * se,
        test=fmean(tests) if tests else math.nan,
        test_std=stdev(tests) if len(tests) > 1 else math.nan,
        successes=successes,
        is_reference=candidate.is_reference,
    )
