"""The laws of the policy, over simulated searches (`tests.worlds.scripted`)."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds.plans import fold, plan
from tests.worlds.scripted import (
    SEEDS,
    STAGES,
    Fate,
    ScriptedSource,
    Simulation,
    check_accounts,
    curve,
    fates_by_seed,
    next_job,
    staged,
    verdict,
)
from tune_rh.decide.follow_ups import is_over_budget
from tune_rh.plan import follow_ups
from tune_rh.record.events import Evaluated, Event, JobEnded, JobStarted, Promoted
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.history import History


def everything(history: History) -> list[Any]:
    """All that decisions read, as plain values."""
    return [
        [(g.order, g.waiting, g.num_promoted, g.control_score()) for g in history.gates],
        [[c.id for c in history.candidates.values() if g.is_out(c.index)] for g in history.gates],
        [(g.unranked, g.passing, g.num_lost_later, g.learnt and g.learnt.share) for g in history.gates],
        [c.barred for c in history.candidates.values()],
        history.incomplete,
        history.pending,
        sorted(history.running),
        (history.num_sampled, history.space_exhausted, history.max_stage, history.steps_spent),
        [
            (c.id, c.stage, [(s, m.status, m.step, m.until_step, m.curve.best) for s, m in sorted(c.members.items())])
            for c in history.candidates.values()
        ],
    ]


def check_no_slot_waited(sim: Simulation) -> None:
    """Wherever the policy waited or finished, nothing could have started, computed the slow way."""
    for history in sim.histories_at_rest():
        may_start = [
            m
            for c in history.candidates.values()
            for m in c.members.values()
            if m.status == "idle" and m.step < sim.plan.stages[m.stage].until_step
        ]
        assert may_start == []
        assert (
            history.num_candidates() == sim.plan.num_candidates
            or history.space_exhausted
            or sim.plan.budget != (type(sim.plan.budget)())
        )
        check_no_follow_up_waited(history)
        for stage, gate in zip(sim.plan.stages[:-1], history.gates, strict=False):
            full = stage.at_most is not None and gate.num_promoted >= stage.at_most
            share = len(gate.order) / (stage.eta or sim.plan.eta)
            quota = math.ceil(share) if stage.when_idle else math.floor(share)
            if gate.learnt is not None:
                quota = gate.quota(up=stage.when_idle)
                full = full or gate.for_seeds or sim.plan.budget.max_steps is not None
            if not full and stage.top is None and not history.num_audited:
                assert [r for r in gate.waiting if gate.rank(r.entry) < quota] == []


def check_no_follow_up_waited(history: History) -> None:
    """No follow-up is due, none that is to be brought up waits, and gates that none can reach any more are filled."""
    plan = history.plan
    assert not any(gate.passing for gate in history.gates)
    others = [c for c in history.candidates.values() if not c.is_reference]
    changes = follow_ups.changes(plan)
    num = len(history.followed)
    left = [] if is_over_budget(plan, history) else changes[num:]
    if left:
        assert not num or changes[num - 1].table != left[0].table
        assert [c for c in others if c.stage <= left[0].follow_up.after and not history.is_complete(c)]
    for k, (stage, gate) in enumerate(zip(plan.stages[:-1], history.gates, strict=False)):
        on_the_way = [c for c in others if c.stage <= k and not history.is_complete(c)]
        to_come = [c for c in left if c.follow_up.after <= k]
        if stage.top and not on_the_way and not to_come:
            full = stage.at_most is not None and gate.num_promoted >= stage.at_most
            assert not gate.waiting or full or gate.num_promoted >= stage.top


SEEDS_LAST = [
    {"until_step": 20, "num_seeds": 1},
    {"until_step": 60, "num_seeds": 1},
    {"until_step": 120, "num_seeds": 1},
    {"until_step": 120, "num_seeds": 2},
    {"until_step": 120, "num_seeds": 3},
]
PLANS: dict[str, dict[str, Any]] = {
    "three stages": {},
    "one candidate": {"num_candidates": 1},
    "two candidates": {"num_candidates": 2},
    "one stage": {"stages": [STAGES[2]]},
    "one seed": {"stages": [{**s, "num_seeds": 1} for s in STAGES]},
    "top": {"stages": staged(top=3)},
    "at_least": {"stages": staged(eta=9.0, at_least=4)},
    "nobody for being quick": {"stages": staged(eta=4.0, when_idle=False)},
    "at_most": {"stages": staged(eta=1.5, at_most=2)},
    "eta": {"stages": staged(eta=2.0), "num_candidates": 12},
    "stop at once": {"gates": "stop", "num_candidates": 14},
    "band": {"scoring": {"band": 0.3, "extra_seeds": 0.0}, "num_candidates": 14},
    "extra seeds": {"scoring": {"band": 0.3, "extra_seeds": 0.4}, "num_candidates": 14},
    "adaptive": {"gates": "adaptive", "num_candidates": 14, "eta": 2.0},
    "adaptive, seeds at the end": {"gates": "adaptive", "num_candidates": 14, "eta": 2.0, "stages": SEEDS_LAST},
    "adaptive, a budget": {
        "gates": "adaptive",
        "num_candidates": 14,
        "stages": SEEDS_LAST,
        "budget": {"max_steps": 1800},
    },
    "best of k": {"scoring": {"objective": "best_of_k", "k": 2}, "num_candidates": 14},
    "rules": {
        "rules": {
            "promote": {"margin": 0.2, "tolerance": 0.1, "healthier": [{"metric": "health", "factor": 1.0}]},
            "patience_steps": 30,
        }
    },
    "gap": {"rules": {"gap": {"first": 0.25, "widening": 0.02}}},
    "gap and rules": {
        "scoring": {"band": 0.3, "extra_seeds": 0.4},
        "num_candidates": 14,
        "rules": {"gap": {"first": 0.4, "widening": 0.0}, "promote": {"margin": 0.2}, "patience_steps": 30},
    },
    "references": {"references": ["good", "diverging"], "rules": {"patience_steps": 30, "gap": {"first": 0.25}}},
    "follow-ups": {
        "num_candidates": 3,
        "stages": [{**STAGES[0], "top": 2}, {**STAGES[1], "top": 2}, STAGES[2]],
        "follow_ups": [
            {"after": 0, "changes": [{"rate": 0.1}]},
            {"after": 0, "enters": 1, "changes": [{"rate": 0.2}, {"rate": 0.3}]},
            {"after": 1, "enters": 1, "changes": [{"rate": 0.4}]},
        ],
    },
    "follow-ups by quota": {
        "stages": staged(eta=2.0),
        "scoring": {"band": 0.3, "extra_seeds": 0.4},
        "references": ["good"],
        "follow_ups": [
            {"after": 0, "enters": 2, "changes": [{"rate": 0.1}, {"rate": 0.2}]},
            {"after": 1, "changes": [{"rate": 0.3}, {"rate": 0.4}]},
        ],
        "rules": {"gap": {"first": 0.6}, "health": [{"metric": "pulse", "at_least": 0.25, "in_a_row": 2}]},
    },
    "health": {
        "rules": {
            "promote": {"margin": 9.0, "tolerance": 9.0, "healthier": [{"metric": "pulse", "margin": 0.25}]},
            "stop": {"slope_steps": 20, "unless": [{"metric": "pulse", "rose_by": 0.5}]},
            "health": [
                {"metric": "pulse", "at_least": 0.25, "in_a_row": 2, "after_step": 10, "stops": True},
                {"metric": "absent", "at_most": 1.0, "required": False},
            ],
        },
    },
}
ALL_PLANS = pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS.keys())
LOSSES = pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 1.0], ids=["healthy", "some", "most", "all lost"])


@ALL_PLANS
@LOSSES
@pytest.mark.parametrize("slots", [1, 4])
def test_every_search_ends_with_everybody_accounted_for(changes: dict[str, Any], share: float, slots: int) -> None:
    for seed in range(4):
        sim = Simulation(plan(**changes), curve, fates=fates_by_seed(seed, share), slots=slots, order=seed).run()
        check_accounts(sim)
        check_no_slot_waited(sim)


@settings(max_examples=60)
@given(
    fates=st.dictionaries(
        st.tuples(st.integers(0, 6), st.sampled_from(SEEDS)),
        st.tuples(st.sampled_from(["fail", "diverge"]), st.sampled_from([10, 20, 30, 60, 70, 120])),
    ),
    levels=st.lists(st.one_of(st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf]), st.floats(0, 3)), min_size=7),
    num=st.integers(1, 6),
    first=st.fixed_dictionaries({}, optional={"eta": st.floats(1.1, 9), "at_least": st.integers(1, 9)}),
    space=st.integers(0, 9),
    slots=st.integers(1, 5),
    order=st.integers(0, 99),
)
def test_nan_failed_tied_and_empty_are_decided(
    fates: dict[tuple[int, int], Fate],
    levels: list[float],
    num: int,
    first: dict[str, Any],
    space: int,
    slots: int,
    order: int,
) -> None:
    def metrics(index: int, _seed: int, _step: int) -> dict[str, float]:
        return {"val_loss": levels[index], "health": 1.0}

    searched = plan(num_candidates=num, stages=staged(**first))
    source = ScriptedSource(searched, space=space)
    sim = Simulation(searched, metrics, fates=fates, slots=slots, order=order, source=source).run()
    check_accounts(sim)
    check_no_slot_waited(sim)
    for k, gate in enumerate(sim.history.gates):
        assert len(gate.order) == sum(c.stage >= k for c in sim.others())


def test_the_control_alone_is_a_search() -> None:
    sim = Simulation(plan(), curve, source=ScriptedSource(plan(), space=0)).run()
    check_accounts(sim)
    assert len(sim.history.candidates) == 1
    assert [(p.candidate, p.gate, p.reason) for p in sim.promoted()] == [
        ("c0000", 0, "control"),
        ("c0000", 1, "control"),
    ]


# --- prefixes and orders ---------------------------------------------------------------------------------------------


@ALL_PLANS
@pytest.mark.parametrize("seed", [0, 1])
def test_every_prefix_gives_the_recorded_decisions_again(changes: dict[str, Any], seed: int) -> None:
    sim = Simulation(plan(**changes), curve, fates=fates_by_seed(seed, 0.2), slots=3, order=seed).run()
    assert any(isinstance(d.decision, Promoted) for d in sim.decisions) or len(sim.plan.stages) == 1
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
    for num_events, member, _, said in sim.verdicts:
        assert verdict(sim.plan, fold(sim.plan, sim.events[:num_events]), member) == said


def shuffled(events: list[Event], seed: int) -> list[Event]:
    """Another order in which the same could have been recorded: records of different members change places."""
    rng = random.Random(seed)
    events = list(events)
    for _ in range(20):
        for i in range(len(events) - 1):
            one, two = events[i], events[i + 1]
            movable = (JobStarted, Evaluated, JobEnded, ReadOfTest)
            if (
                isinstance(one, movable)
                and isinstance(two, movable)
                and one.member != two.member
                and rng.random() < 0.5
            ):
                events[i], events[i + 1] = two, one
    return events


@ALL_PLANS
def test_the_order_of_records_of_different_members_does_not_matter(changes: dict[str, Any]) -> None:
    sim = Simulation(plan(**changes), curve, fates=fates_by_seed(5, 0.2), slots=4, order=5).run()
    moved = 0
    cuts = range(len(sim.events), 0, -max(1, len(sim.events) // 40))
    for cut in cuts:
        events = sim.events[:cut]
        other = shuffled(events, cut)
        moved += other != events
        one, two = fold(sim.plan, events), fold(sim.plan, other)
        assert everything(two) == everything(one)
        assert next_job(sim.plan, two) == next_job(sim.plan, one)
    assert moved > len(cuts) / 2


def test_with_barriers_at_every_gate_the_order_of_completion_does_not_matter() -> None:
    searched = plan(stages=[{**STAGES[0], "top": 4}, {**STAGES[1], "top": 2}, STAGES[2]])
    results = []
    for slots, order in itertools.product((1, 2, 5), range(3)):
        sim = Simulation(searched, curve, fates=fates_by_seed(3, 0.2), slots=slots, order=order).run()
        results.append([(c.id, c.stage, [m.step for _, m in sorted(c.members.items())]) for c in sim.others()])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("name", ["three stages", "rules", "top", "one stage", "gap", "health", "follow-ups"])
def test_a_driver_may_die_after_any_event(name: str) -> None:
    """Also between a report and what follows from it: parked, stopped, diverged and completed are not run again."""
    sim = Simulation(plan(**{**PLANS[name], "num_candidates": 4}), curve, fates=fates_by_seed(2, 0.2)).run()

    def outcome(of: Simulation) -> list[Any]:
        return [
            (c.id, c.stage, [(s, m.status, m.curve.steps, m.curve.values) for s, m in sorted(c.members.items())])
            for c in of.history.candidates.values()
        ]

    for cut in range(1, len(sim.events)):
        again = sim.taken_over(cut)
        check_accounts(again)
        assert repr(outcome(again)) == repr(outcome(sim)), sim.events[cut - 1]
        reports = [(e.member, e.step) for e in again.events if isinstance(e, Evaluated)]
        assert len(set(reports)) == len(reports), sim.events[cut - 1]
