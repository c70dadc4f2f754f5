"""What a run has come to, from its history: the standings at each gate, the funnel, the ranking, the best, the cost.

Each is defined here once; terminal, export, report and tables show these. Values are in the objective's own sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean, stdev

from analysis.stats.scores import Values
from analysis.view import AUDIT, Entry, FunnelRow, Spent, Standing, drawn
from trainables.api import test_metric
from trainables.knowledge import knowledge_of
from trainables.spelling import meant
from tune_rh.plan import cost
from tune_rh.record.events import OTHER_REASONS, MemberId
from tune_rh.record.history import History
from tune_rh.record.members import Candidate, Member


def entries(history: History, stage: int) -> list[Entry]:
    """Everything that was scored at the gate of a stage, best first; what it is scored by is the gate's own."""
    return sorted(_entries(history, stage), key=lambda e: _order(history, e.score, e.candidate, e.rank or 0))


def funnel(history: History) -> list[FunnelRow]:
    """One row a stage."""
    plan, audits = history.plan, _audits(history)
    others = {c.id: c for c in history.candidates.values() if c is not history.control and not c.is_reference}
    rows = []
    for k, stage in enumerate(plan.stages):
        if plan.members_compete:
            entered = sum(m.stage >= k for c in others.values() for m in c.members.values())
        else:
            entered = sum(c.stage >= k for c in others.values())
        scored = [entry for entry in _entries(history, k) if entry.candidate in others]
        went_on = [entry for entry in scored if entry.promoted or k == plan.last_stage]
        audited = sum(audits.get(entry.candidate, math.inf) <= k for entry in went_on)
        lost = sum(entry.num_lost for entry in scored)
        counts = (entered, len(scored), len(went_on) - audited, audited, lost)
        rows.append(FunnelRow(stage.until_step, stage.num_seeds, *counts))
    return rows


def standings(history: History, stage: int) -> list[Standing]:
    """Those scored at the gate of a stage, best first by the pessimistic bound; of a race at its end its one config."""
    plan = history.plan
    entries_of = {} if plan.members_compete else {entry.candidate: entry for entry in _entries(history, stage)}
    if stage == plan.last_stage and (
        plan.members_compete or (plan.kind == "comparison" and history.ended == "finished")
    ):
        entries_of = {entry.candidate: entry for entry in _partial_entries(history)} | entries_of
    rows = [_standing(history, entry) for entry in entries_of.values()]
    return sorted(rows, key=lambda row: _order(history, row.bound, row.candidate, 0))


def ranking(history: History) -> list[Standing]:
    """Those that finished the last stage, control and references included, best first by the pessimistic bound."""
    return standings(history, history.plan.last_stage)


def failed_requirements(history: History, candidate: str) -> tuple[str, ...]:
    """The diagnostics that the plan requires and that at least half of the candidate's seeds fail.

    A diagnosis that crashed or did not run has not shown a pass, and counts as a fail.
    """
    diagnosed = [m.diagnosed.verdicts for m in history.candidates[candidate].members.values() if m.diagnosed]
    return tuple(
        name
        for name in history.plan.require
        if 2 * sum(verdicts.get(name, "fail") == "fail" for verdicts in diagnosed) >= len(diagnosed)
    )


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


def about_draws(history: History) -> tuple[str, ...]:
    """Sentences on draws that gave no candidate: the space ran out of configs, or draws were no valid config."""
    plan, said = history.plan, []
    if history.space_exhausted:
        asked = f"{history.num_candidates()} of {plan.num_candidates}"
        said.append(f"The search ended with no config left after {asked}: whatever else was drawn had been tried.")
    num = history.passed_over.total()
    if num:
        why, most = max(((w, n) for w, n in history.passed_over.items() if w != OTHER_REASONS), key=lambda row: row[1])
        more = f"; {num - most} for other reasons" if num > most else ""
        said.append(
            f"{num} {'draw was' if num == 1 else 'draws were'} passed over as no valid config: {why} ({most}{more})."
        )
    return tuple(said)


def about_gates(history: History) -> tuple[str, ...]:
    """Sentences on gates that learn how many go on: what they let through, and from which agreement of ranks."""
    said = []
    for k, gate in enumerate(history.gates):
        if gate.learnt is None or not gate.order:
            continue
        found = gate.learnt.agreement
        seen = (
            f"from {found.num_pairs} seen at the next" if found.num_pairs else "as is usual, before any was seen there"
        )
        said.append(
            f"Gate {k + 1} lets {gate.quota()} of {len(gate.order)} through: ranks agree by {found.value:.2f} "
            f"({found.low:.2f} to {found.high:.2f}) with those at the next gate, {seen}."
        )
    return tuple(said)


def about_packages(history: History) -> tuple[str, ...]:
    """A sentence on what the value of information has chosen; none where it has chosen nothing."""
    chosen = [decision for decision in history.decisions if decision.gain is not None]
    if not chosen:
        return ()
    num_drawn, last = sum(decision.kind == "drawn" for decision in chosen), chosen[-1]
    assert last.towards is not None
    return (
        f"Chosen by the value of information: draws {num_drawn}, promotions {len(chosen) - num_drawn}; last "
        f"{last.candidate}, for an expected gain of {last.gain:.2g} at {history.plan.stages[last.towards].end}.",
    )


def leader(history: History) -> Candidate | None:
    """The candidate that would be handed over now, before a search is over; None while there is no reading.

    The best by mean + 1 standard error over the seeds with which it came to the last gate that it has reached, each at
    its best so far. The best value so far only falls, so a candidate that stands earlier is not flattered. Some have
    more seeds than others: what seeds do to all candidates alike is taken out, as far as gates have learnt it.
    """
    effects = next((e for gate in reversed(history.gates) if len(e := gate.seeds.effects) > 1), {})
    best, chosen = math.inf, None
    for k, gate in reversed(list(enumerate(history.gates))):
        shift = _shift(effects, history.plan.stage_seeds(k))
        for rank in gate.order:
            # A score never exceeds its bound: those behind the best bound have no better one.
            if rank.score - shift >= best:
                break
            if gate.is_out(rank.entry) or any(later.has(rank.entry) for later in history.gates[k + 1 :]):
                continue
            bound = _bound(history, history.candidate_at(rank.entry), k, effects)
            if bound < best:
                best, chosen = bound, history.candidate_at(rank.entry)
    # Members that run have gone on since their gate, and the control has no rank.
    beside = {member.candidate: history.candidates[member.candidate] for member in history.running}
    for candidate in (history.control, *beside.values()):
        if candidate is None or candidate.is_reference or history.is_out(candidate):
            continue
        k = next((k for k in reversed(range(candidate.stage + 1)) if history.gates[k].has(candidate.index)), -1)
        bound = _bound(history, candidate, k, effects)
        if bound < best:
            best, chosen = bound, candidate
    return chosen


def _bound(history: History, candidate: Candidate, k: int, effects: Mapping[int, float]) -> float:
    """Mean of the best values so far of the seeds that came to gate ``k``, + 1 standard error.

    Of a best of k the score. At no gate yet (-1): of those seeds of the first stage that have a value; inf for none.
    """
    error, plan = 0.0, history.plan
    if k >= 0:
        gate = history.gates[k]
        if plan.scoring.objective == "best_of_k" or None in gate.values(candidate.index).values():
            return gate.score(candidate.index)
        error = gate.error(candidate.index)[0]
        seeds = tuple(gate.values(candidate.index))
    else:
        seeds = tuple(seed for seed in plan.stage_seeds(0) if math.isfinite(candidate.members[seed].curve.best))
    if not seeds:
        return math.inf
    value = fmean(candidate.members[seed].curve.best for seed in seeds)
    return value - _shift(effects, seeds) + (0.0 if math.isnan(error) else error)


def _shift(effects: Mapping[int, float], seeds: Iterable[int]) -> float:
    """Mean effect of those of ``seeds`` whose effect is known."""
    known = [effects[seed] for seed in seeds if seed in effects]
    return fmean(known) if known else 0.0


def best_member(history: History, candidate: str) -> MemberId:
    """The candidate's seed with the best value on val; raises ValueError if all were lost."""
    members = [m for m in history.candidates[candidate].members.values() if m.value is not None]
    if history.plan.members_compete:
        # A member that was cut at a gate may have been better there, but only those at the end were tested.
        members = [m for m in members if m.stage == history.plan.last_stage]
    return min(members, key=lambda m: m.curve.best).id


def describe(candidate: Candidate) -> str:
    """Preset name; for a follow-up its parent and changes; otherwise the drawn parameters; its role before it."""
    if candidate.added.origin in ("control", "reference", "follow_up"):
        return f"{candidate.added.origin.replace('_', '-')}: {candidate.added.label}"
    return candidate.added.label or drawn(meant(candidate.added.params))


def _entries(history: History, stage: int) -> Iterator[Entry]:
    """In any order."""
    gate = history.gates[stage]
    reasons = {(d.candidate, d.seed): d.reason for d in history.decisions if d.kind == "promoted" and d.gate == stage}
    places = {rank.entry: place for place, rank in enumerate(gate.order)}
    for index in (*places, *gate.unranked):
        candidate, seed = history.entry_at(index)
        reason = reasons.get((candidate.id, seed), "")
        scored = (gate.values(index), gate.score(index), gate.error(index))
        yield _entry(history, stage, candidate, seed, *scored, places.get(index), gate.successes(index), reason)


def _entry(
    history: History,
    stage: int,
    candidate: Candidate,
    seed: int | None,
    values: Values,
    score: float,
    error: tuple[float, float],
    rank: int | None,
    successes: int | None = None,
    reason: str = "",
) -> Entry:
    return Entry(
        gate=stage,
        until_step=history.plan.stages[stage].until_step,
        candidate=candidate.id,
        seed=seed,
        values={seed: None if value is None else history.shown(value) for seed, value in values.items()},
        score=history.shown(score) if math.isfinite(score) else math.nan,
        se=error[0],
        df=error[1],
        rank=rank,
        num_scored=len(history.gates[stage].order),
        successes=successes,
        promoted=bool(reason),
        reason=reason,
        is_control=candidate is history.control,
    )


def _partial_entries(history: History) -> Iterator[Entry]:
    """A race's config, or the sides of a comparison that ended early, over the members that ran to the end."""
    last = history.plan.last_stage
    for candidate in history.candidates.values():
        members = [m for m in candidate.members.values() if m.stage == last and history.has_reached(m)]
        values = {m.id.seed: m.value for m in members}
        finite = [value for value in values.values() if value is not None]
        se = stdev(finite) / math.sqrt(len(finite)) if len(finite) > 1 else math.nan
        if values:
            score = fmean(finite) if finite else math.inf
            yield _entry(history, last, candidate, None, values, score, (se, len(finite) - 1.0), 0)


def _standing(history: History, entry: Entry) -> Standing:
    plan, candidate = history.plan, history.candidates[entry.candidate]
    members = [candidate.members[seed] for seed in entry.values]
    values = [value for value in entry.values.values() if value is not None]
    test, test_std, num_tested = _tested(members, test_metric(plan.objective))
    moves = 0.0 if math.isnan(entry.se) or plan.scoring.objective == "best_of_k" else entry.se
    is_end = entry.gate == plan.last_stage
    return Standing(
        entry=entry,
        label=describe(candidate),
        std=stdev(values) if len(values) > 1 else math.nan,
        bound=entry.score + (moves if plan.mode == "min" else -moves),
        test=test,
        test_std=test_std,
        num_tested=num_tested,
        at_test=_tested(members, plan.objective)[0],
        failed=failed_requirements(history, entry.candidate) if is_end else (),
        knowledge=knowledge_of(plan.family, candidate.added.config),
    )


def _tested(members: list[Member], metric: str) -> tuple[float, float, int]:
    """Mean, standard deviation and number of what the best checkpoints of those that were not lost came to."""
    tested = [m.tested.metrics for m in members if m.tested is not None and m.value is not None]
    values = [value for value in (metrics.get(metric, math.nan) for metrics in tested) if math.isfinite(value)]
    std = stdev(values) if len(values) > 1 else math.nan
    return fmean(values) if values else math.nan, std, len(values)


def _order(history: History, score: float, candidate: str, rank: int) -> tuple[bool, float, int, int]:
    """Sort key: NaN last, then the score, then the order of entry; ranks tell the members of a race apart."""
    minimised = -score if history.plan.mode == "max" else score
    return math.isnan(score), minimised, history.candidates[candidate].index, rank


def _audits(history: History) -> dict[str, int]:
    """Audited candidates, with the first gate that they passed only for that."""
    first: dict[str, int] = {}
    for decision in history.decisions:
        if decision.kind == "promoted" and decision.reason == AUDIT:
            first.setdefault(decision.candidate, decision.gate)
    return first
