"""The laws of the policy over plans and outcomes drawn at random: every rule at once, every kind of loss, any crash.

Other policy tests say what should happen in one case; these say what must hold in all. The fast profile draws a few,
`slow` some thousands.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings

from tests.decide.test_policy import check_no_slot_waited, everything, shuffled
from tests.worlds.drawn import SEARCHES, WORLDS, Elastic, World, drawn
from tests.worlds.plans import fold
from tests.worlds.scripted import Simulation, check_accounts, next_job, verdict
from tune_rh.decide.follow_ups import is_over_budget
from tune_rh.decide.value import ValueScheduler
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.events import (
    CandidateAdded,
    Evaluated,
    Event,
    JobEnded,
    JobStarted,
    MemberId,
    SeedAdded,
    SessionStarted,
    SlotsChanged,
    decode,
    encode,
)
from tune_rh.record.rules import Curve, out_of_bounds

_NEVER = 99


def check_decisions_again(sim: Simulation, every: int = 1) -> None:
    """Every prefix of the journal, as it is written, gives the recorded decisions and verdicts again."""
    lines = [encode(event) for event in sim.events]
    read = [decode(line) for line in lines]
    assert [encode(event) for event in read] == lines
    for decided in sim.decisions[::every]:
        history = fold(sim.plan, read[: decided.num_events])
        assert next_job(sim.plan, history, decided.prefer) == decided.decision
    for num_events, member, _, said in sim.verdicts[::every]:
        assert verdict(sim.plan, fold(sim.plan, read[:num_events]), member) == said


def check_order_of_records(sim: Simulation, every: int) -> None:
    """Records of different members change places, and nothing else changes.

    Gates that cut on arrival go by the order, and a required check begins because of the record before it.
    """
    if any(sim.plan.gate(k).cuts for k in range(len(sim.plan.stages))) or sim.plan.require:
        return
    for cut in range(len(sim.events), 0, -every):
        events = sim.events[:cut]
        one, two = fold(sim.plan, events), fold(sim.plan, shuffled(events, cut))
        assert everything(one) == everything(two)
        assert next_job(sim.plan, two) == next_job(sim.plan, one)


def check_counted_once(sim: Simulation) -> None:
    """One candidate a gate, one start at a time, one report a step, one seed more a gate, one reading of test."""
    promoted = [(p.candidate, p.gate, p.seed) for p in sim.promoted()]
    assert len(set(promoted)) == len(promoted)
    bought = [(e.candidate, e.gate) for e in sim.events if isinstance(e, SeedAdded)]
    assert len(set(bought)) == len(bought)
    added = [e.candidate for e in sim.events if isinstance(e, CandidateAdded)]
    assert len(set(added)) == len(added)
    running: set[MemberId] = set()
    slots = 0
    for event in sim.events:
        if isinstance(event, SessionStarted | SlotsChanged):
            slots = event.slots
        if isinstance(event, SessionStarted):
            running.clear()
        elif isinstance(event, JobStarted):
            assert event.member not in running
            running.add(event.member)
            assert len(running) <= slots
        elif isinstance(event, JobEnded):
            running.remove(event.member)
    reports = [(e.member, e.step) for e in sim.events if isinstance(e, Evaluated)]
    assert len(set(reports)) == len(reports)
    assert sim.history.steps_spent == sum(m.step for c in sim.history.candidates.values() for m in c.members.values())


def check_audits(sim: Simulation) -> None:
    """Once the first of those that were cut is brought to the end for an audit, nobody else goes on."""
    others = [p for p in sim.promoted() if p.reason not in ("control", "reference")]
    reasons = [p.reason for p in others]
    if "audit" in reasons:
        assert set(reasons[reasons.index("audit") :]) == {"audit"}
    assert len({p.candidate for p in others if p.reason == "audit"}) <= sim.plan.audit


def check_who_was_barred(sim: Simulation) -> None:
    """Health and gap again, from the curves of the seeds that a gate asked for, as far as that gate."""
    plan, history = sim.plan, sim.history
    until = {(j.member, j.stage): j.until_step for j in sim.events if isinstance(j, JobStarted)}
    assert all(step == plan.stages[stage].until_step for (_, stage), step in until.items())
    lost_in = _stages_of_losses(sim.events)
    for k, gate in enumerate(history.gates[:-1]):
        for candidate in sim.others():
            if candidate.stage < k:
                continue
            seeds = gate.values(candidate.index).keys()
            alive = [seed for seed in seeds if lost_in.get(MemberId(candidate.id, seed), _NEVER) > k]
            curves = [_until(candidate.members[seed].curve, plan.stages[k].until_step) for seed in alive]
            sick = out_of_bounds(plan.rules.health, curves) is not None
            none = all(value is None for value in gate.values(candidate.index).values())
            assert none == all(not math.isfinite(curve.best) for curve in curves)
            if sick or none:
                assert gate.is_out(candidate.index)
                assert candidate.stage == k
            elif plan.gap is None and not plan.require:
                assert not gate.is_out(candidate.index)


def _stages_of_losses(events: list[Event]) -> dict[MemberId, int]:
    """Member -> stage in which it diverged or failed."""
    at, lost = dict[MemberId, int](), dict[MemberId, int]()
    for event in events:
        if isinstance(event, JobStarted):
            at[event.member] = event.stage if event.purpose == "train" else _NEVER
        elif isinstance(event, JobEnded) and event.outcome in ("diverged", "failed"):
            lost[event.member] = at[event.member]
    return lost


def _until(curve: Curve, step: int) -> Curve:
    cut = Curve()
    for at, value, metrics in zip(curve.steps, curve.values, curve.metrics, strict=True):
        if at <= step:
            cut.add(at, value, metrics)
    return cut


def check_the_budget_was_spent(sim: Simulation) -> None:
    """Wherever it waited or finished within its budget, nothing could have started."""
    assert isinstance(sim.plan, Search)
    scheduler = ValueScheduler(sim.plan)
    for history in sim.histories_at_rest():
        members = [m for c in history.candidates.values() for m in c.members.values() if m.status == "idle"]
        assert [m.id for m in members if m.step < sim.plan.stages[m.stage].until_step] == []
        left = scheduler.steps_left(history)
        if is_over_budget(sim.plan, history) or history.num_audited:
            continue
        steps = [stage.num_seeds * stage.until_step for stage in sim.plan.stages]
        assert history.num_candidates() == sim.plan.num_candidates or history.space_exhausted or steps[0] > left
        for k, (stage, gate) in enumerate(zip(sim.plan.stages[:-1], history.gates, strict=False)):
            assert not gate.waiting or gate.num_promoted == stage.at_most or steps[k + 1] - steps[k] > left


def check_all(sim: Simulation, number: int) -> None:
    """All laws; those that cost much on some of the events only, which change from example to example."""
    check_accounts(sim)
    (check_the_budget_was_spent if sim.plan.scheduler == "value" else check_no_slot_waited)(sim)
    check_counted_once(sim)
    check_audits(sim)
    check_who_was_barred(sim)
    check_decisions_again(sim, every=13)
    check_order_of_records(sim, every=max(1, len(sim.events) // 5))
    again = sim.taken_over(1 + number % len(sim.events), order=number)
    check_accounts(again)
    check_counted_once(again)
    check_audits(again)


LAWS = {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=100, **LAWS)  # type: ignore[arg-type]
@given(searched=SEARCHES, world=WORLDS)
def test_the_laws_hold_whatever_the_plan_and_whatever_becomes_of_it(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world), world.number)


@settings(max_examples=35, **LAWS)  # type: ignore[arg-type]
@given(searched=SEARCHES, world=WORLDS)
def test_the_laws_hold_while_slots_come_and_go(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world, Elastic), world.number)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10000, **LAWS)  # type: ignore[arg-type]
@given(searched=SEARCHES, world=WORLDS)
def test_the_laws_hold_in_thousands_of_searches(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world), world.number)
