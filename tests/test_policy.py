"""The laws of the policy, over simulated searches (`tests.simulated`)."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plans import plan
from tests.simulated import Fate, Metrics, Simulation, curve
from tune_rh.events import Event, JobEnded, JobStarted, MemberId, Promoted, Reported, SessionStarted
from tune_rh.events import Tested as ReadOfTest
from tune_rh.history import History, fold
from tune_rh.plan import SearchPlan, Stage
from tune_rh.policy import AskCandidate, Continue, Finish, Park, Promote, RunMember, Stop, Wait, next_job, verdict

SEEDS = (7, 42, 1337)
STAGES = [{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 2}, {"until_step": 120, "num_seeds": 3}]


def staged(**first: Any) -> list[dict[str, Any]]:
    return [{**STAGES[0], **first}, *STAGES[1:]]


def fates_by_seed(seed: int, share: float, num: int = 30) -> dict[tuple[int, int], Fate]:
    rng = random.Random(seed)
    return {
        (index, member): (rng.choice(["fail", "diverge"]), 10 * rng.randint(1, 12))
        for index in range(num)
        for member in SEEDS
        if rng.random() < share
    }


def everything(history: History) -> list[Any]:
    """All that decisions read, as plain values."""
    return [
        [(g.order, g.waiting, g.num_promoted, g.num_out, g.control_score()) for g in history.gates],
        history.incomplete,
        history.pending,
        sorted(history.running),
        (history.num_sampled, history.space_exhausted, history.max_stage, history.steps_spent),
        [
            (c.id, c.stage, [(s, m.status, m.step, m.until_step, m.curve.best) for s, m in sorted(c.members.items())])
            for c in history.candidates.values()
        ],
    ]


def check_accounts(sim: Simulation) -> None:
    """What holds at the end of every search."""
    plan, history = sim.plan, sim.history
    last = plan.last_stage
    assert not history.running
    assert not history.pending
    assert history.incomplete == [0] * len(plan.stages)
    for candidate in history.candidates.values():
        assert history.is_complete(candidate), candidate.id
        until = plan.stages[candidate.stage].until_step
        for seed in plan.stage_seeds(candidate.stage):
            member = candidate.members[seed]
            assert member.lost or member.status == "stopped" or member.step == until
            assert (member.tested is not None) == (candidate.stage == last and not member.lost)
    control = history.control
    assert control is not None
    assert control.stage == last
    assert control.members.keys() == set(plan.seeds[: plan.stages[-1].num_seeds])
    assert all(m.lost or m.step == plan.stages[-1].until_step for m in control.members.values())
    assert not any(m.status == "stopped" for m in control.members.values())
    check_gates(sim)


def check_gates(sim: Simulation) -> None:
    """Somebody gets to the end if anybody can, and every gate keeps to its bounds."""
    plan, history = sim.plan, sim.history
    capped = any(stage.at_most is not None for stage in plan.stages)
    for k, (stage, gate) in enumerate(zip(plan.stages[:-1], history.gates, strict=False)):
        through = [c for c in sim.others() if c.stage > k]
        assert gate.num_promoted == len(through)
        assert stage.at_most is None or len(through) <= stage.at_most
        dead = sum(g.num_out for g in history.gates[k + 1 :])
        if not capped:
            assert not gate.waiting or len(through) - dead >= min(stage.at_least, stage.top or stage.at_least)
        if stage.top is not None:
            assert len(through) <= stage.top + dead
            assert not gate.waiting or len(through) >= stage.top
    finished = [c for c in sim.others() if c.stage == plan.last_stage and not all(m.lost for m in c.members.values())]
    if any(gate.waiting for gate in history.gates[:-1]) and not capped:
        assert finished


def check_no_slot_waited(sim: Simulation) -> None:
    """Wherever the policy waited or finished, nothing could have started, computed the slow way."""
    history = History(sim.plan)
    waits = {d.num_events for d in sim.decisions if isinstance(d.decision, Wait | Finish)}
    for num, event in enumerate(sim.events, start=1):
        history.apply(event)
        if num not in waits:
            continue
        may_start = [
            m
            for c in history.candidates.values()
            for m in c.members.values()
            if m.status == "idle" and m.step < sim.plan.stages[c.stage].until_step
        ]
        assert may_start == []
        assert (
            history.num_candidates() == sim.plan.num_candidates
            or history.space_exhausted
            or sim.plan.budget != (type(sim.plan.budget)())
        )
        for stage, gate in zip(sim.plan.stages[:-1], history.gates, strict=False):
            full = stage.at_most is not None and gate.num_promoted >= stage.at_most
            quota = math.ceil(len(gate.order) / (stage.eta or sim.plan.eta))
            if not full and stage.top is None:
                assert [r for r in gate.waiting if gate.rank(r.entry) < quota] == []


PLANS: dict[str, dict[str, Any]] = {
    "three stages": {},
    "one candidate": {"num_candidates": 1},
    "two candidates": {"num_candidates": 2},
    "one stage": {"stages": [STAGES[2]]},
    "one seed": {"stages": [{**s, "num_seeds": 1} for s in STAGES]},
    "top": {"stages": staged(top=3)},
    "at_least": {"stages": staged(eta=9.0, at_least=4)},
    "at_most": {"stages": staged(eta=1.5, at_most=2)},
    "eta": {"stages": staged(eta=2.0), "num_candidates": 12},
    "rules": {
        "rules": {
            "promote": {"margin": 0.2, "tolerance": 0.1, "health_metric": "health", "health_factor": 1.0},
            "patience_steps": 30,
        }
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


@settings(max_examples=60, deadline=None)
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
    sim = Simulation(searched, metrics, fates=fates, slots=slots, order=order, space=space).run()
    check_accounts(sim)
    check_no_slot_waited(sim)
    for k, gate in enumerate(sim.history.gates):
        assert len(gate.order) == sum(c.stage >= k for c in sim.others())


def test_the_control_alone_is_a_search() -> None:
    sim = Simulation(plan(), curve, space=0).run()
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
    assert any(isinstance(d.decision, Promote) for d in sim.decisions) or len(sim.plan.stages) == 1
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
    for num_events, member, diverged, said in sim.verdicts:
        assert verdict(sim.plan, fold(sim.plan, sim.events[:num_events]), member, diverged=diverged) == said


def shuffled(events: list[Event], seed: int) -> list[Event]:
    """Another order in which the same could have been recorded: records of different members change places."""
    rng = random.Random(seed)
    events = list(events)
    for _ in range(20):
        for i in range(len(events) - 1):
            one, two = events[i], events[i + 1]
            movable = (JobStarted, Reported, JobEnded, ReadOfTest)
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


def interrupt(sim: Simulation, cut: int) -> Simulation:
    """The same search after its driver died at ``cut`` and another took it over."""
    again = Simulation(sim.plan, sim.metrics, fates=sim.fates, slots=sim.slots, space=sim.space)
    for event in sim.events[:cut]:
        again.record(event)
    again.record(SessionStarted(2, 0.0, "simulated", sim.slots))
    while again.fill():
        again.advance(min(again.history.running))
    return again


@pytest.mark.parametrize("name", ["three stages", "rules", "top", "one stage"])
def test_a_driver_may_die_after_any_event(name: str) -> None:
    """Also between a report and what follows from it: parked, stopped, diverged and completed are not run again."""
    sim = Simulation(plan(**{**PLANS[name], "num_candidates": 5}), curve, fates=fates_by_seed(2, 0.2)).run()

    def outcome(of: Simulation) -> list[Any]:
        return [
            (c.id, c.stage, [(s, m.status, m.curve.steps, m.curve.values) for s, m in sorted(c.members.items())])
            for c in of.history.candidates.values()
        ]

    for cut in range(1, len(sim.events)):
        again = interrupt(sim, cut)
        check_accounts(again)
        assert repr(outcome(again)) == repr(outcome(sim)), sim.events[cut - 1]
        reports = [(e.member, e.step) for e in again.events if isinstance(e, Reported)]
        assert len(set(reports)) == len(reports), sim.events[cut - 1]


# --- gates -----------------------------------------------------------------------------------------------------------


def by_index(index: int, _seed: int, _step: int) -> dict[str, float]:
    """The later it came, the better; the control in the middle."""
    return {"val_loss": 20.0 - index if index else 15.5, "health": 1.0}


def levels(*values: float, health: Callable[[int], float] = lambda _index: 1.0) -> Metrics:
    """Control first; the same at every step and seed."""

    def metrics(index: int, _seed: int, _step: int) -> dict[str, float]:
        return {"val_loss": values[index], "health": health(index)}

    return metrics


def passed(sim: Simulation, gate: int = 0) -> dict[str, str]:
    """Who passed ``gate``, and why."""
    return {p.candidate: p.reason for p in sim.promoted() if p.gate == gate and p.candidate != "c0000"}


def test_the_quota_is_a_share_of_those_that_arrived() -> None:
    # Each is the best so far when it arrives: with eta = 3 the third is promotable, then any that is the best of more.
    sim = Simulation(plan(num_candidates=6), by_index).run()
    assert passed(sim) == {"c0003": "quota", "c0004": "quota", "c0005": "quota", "c0006": "quota"}
    # The first are the best: of six one third, and nobody else.
    sim = Simulation(plan(num_candidates=6), levels(5.5, 1, 2, 3, 4, 5, 6)).run()
    assert passed(sim) == {"c0001": "quota", "c0002": "quota"}
    assert {
        p.candidate: (p.rank, p.num_scored, p.score) for p in sim.promoted() if p.gate == 0 and p.reason == "quota"
    } == {
        "c0001": (0, 3, 1.0),
        "c0002": (1, 6, 2.0),
    }


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ({"eta": 2.0}, {"c0001": "quota", "c0002": "quota", "c0003": "quota"}),
        ({"eta": 4.0}, {"c0001": "quota", "c0002": "idle"}),
        ({"eta": 6.0}, {"c0001": "quota"}),
        ({"eta": 50.0}, {"c0001": "idle"}),
        ({"eta": 50.0, "at_least": 3}, {"c0001": "idle", "c0002": "at_least", "c0003": "at_least"}),
        ({"eta": 50.0, "at_least": 9}, {"c0001": "idle", **{f"c000{i}": "at_least" for i in range(2, 7)}}),
        ({"eta": 1.2, "at_most": 2}, {"c0001": "quota", "c0002": "quota"}),
        ({"eta": 50.0, "at_least": 2, "at_most": 2}, {"c0001": "idle", "c0002": "at_least"}),
        ({"top": 2}, {"c0001": "top", "c0002": "top"}),
        ({"top": 9}, {f"c000{i}": "top" for i in range(1, 7)}),
        ({"top": 3, "at_most": 2}, {"c0001": "top", "c0002": "top"}),
    ],
)
def test_eta_top_at_least_and_at_most(first: dict[str, Any], expected: dict[str, str]) -> None:
    sim = Simulation(plan(num_candidates=6, stages=staged(**first)), levels(5.5, 1, 2, 3, 4, 5, 6)).run()
    assert passed(sim) == expected


@pytest.mark.parametrize("slots", [1, 3])
def test_top_waits_for_everybody(slots: int) -> None:
    sim = Simulation(plan(num_candidates=6, stages=staged(top=2)), by_index, slots=slots).run()
    assert passed(sim) == {"c0006": "top", "c0005": "top"}
    promotions = [p for p in sim.promoted() if p.reason == "top"]
    assert all(p.num_scored == 6 for p in promotions)
    assert promotions == [Promoted("c0006", 0, "top", 14.0, 0, 6), Promoted("c0005", 0, "top", 15.0, 1, 6)]


def test_the_next_best_takes_the_place_of_one_that_is_lost_later() -> None:
    lost: dict[tuple[int, int], Fate] = {(1, seed): ("diverge", 50) for seed in SEEDS}
    sim = Simulation(plan(num_candidates=3), levels(5.5, 1, 2, 3), fates=lost).run()
    assert passed(sim) == {"c0001": "quota", "c0002": "at_least"}
    assert sim.history.candidates["c0002"].stage == 2
    lost.update({(2, seed): ("fail", 110) for seed in SEEDS})
    sim = Simulation(plan(num_candidates=3), levels(5.5, 1, 2, 3), fates=lost).run()
    assert passed(sim) == {"c0001": "quota", "c0002": "at_least", "c0003": "at_least"}
    assert [sim.history.candidates[f"c000{i}"].stage for i in (1, 2, 3)] == [1, 2, 2]
    check_accounts(sim)


def test_at_most_is_a_cap_even_then() -> None:
    lost: dict[tuple[int, int], Fate] = {(1, seed): ("diverge", 50) for seed in SEEDS}
    sim = Simulation(plan(num_candidates=3, stages=staged(at_most=1)), levels(5.5, 1, 2, 3), fates=lost).run()
    assert passed(sim) == {"c0001": "quota"}
    check_accounts(sim)


def test_a_lost_seed_counts_as_the_worst_and_a_candidate_with_none_left_is_out() -> None:
    fates: dict[tuple[int, int], Fate] = {(1, 7): ("diverge", 10), (2, 7): ("fail", 10), (2, 42): ("diverge", 20)}
    sim = Simulation(plan(num_candidates=3, stages=staged(top=3)), levels(5.5, 1, 2, 3), fates=fates).run()
    gate = sim.history.gates[0]
    assert gate.score(1) == (5.5 + 1) / 2
    assert gate.score(2) == 5.5
    assert passed(sim) == {"c0003": "top", "c0001": "top"}


def test_more_seeds_are_earned_with_more_steps() -> None:
    sim = Simulation(plan(num_candidates=3, seeds=[7, 42, 1337]), levels(5.5, 1, 2, 3)).run()
    seeds = {c.id: {s: m.step for s, m in c.members.items()} for c in sim.history.candidates.values()}
    assert seeds == {
        "c0000": {7: 120, 42: 120, 1337: 120},
        "c0001": {7: 120, 42: 120, 1337: 120},
        "c0002": {7: 20, 42: 20},
        "c0003": {7: 20, 42: 20},
    }


# --- rules -----------------------------------------------------------------------------------------------------------

MARGIN = {"promote": {"margin": 0.25}}
HEALTH = {"promote": {"margin": 9.0, "tolerance": 0.25, "health_metric": "health", "health_factor": 1.5}}
NO_QUOTA = staged(eta=99.0)


def test_whoever_beats_the_control_by_the_margin_goes_on() -> None:
    metrics = levels(2.0, 1.5, 1.75, 1.76, 2.5)
    sim = Simulation(plan(num_candidates=4, stages=NO_QUOTA, rules=MARGIN), metrics).run()
    assert passed(sim) == {"c0001": "margin", "c0002": "margin"}


def test_whoever_is_as_good_and_healthier_goes_on() -> None:
    metrics = levels(2.0, 2.25, 2.0, 2.26, 2.1, health=lambda index: (1.0, 1.5, 1.4, 9.0, 2.0)[index])
    sim = Simulation(plan(num_candidates=4, stages=NO_QUOTA, rules=HEALTH), metrics).run()
    assert passed(sim) == {"c0001": "health", "c0004": "health", "c0002": "idle"}


@pytest.mark.parametrize("rules", [MARGIN, HEALTH])
def test_a_control_that_is_lost_is_easy_to_beat_but_has_no_health(rules: dict[str, Any]) -> None:
    fates: dict[tuple[int, int], Fate] = {(0, seed): ("diverge", 10) for seed in SEEDS}
    sim = Simulation(plan(num_candidates=2, stages=NO_QUOTA, rules=rules), levels(0, 1.0, 2.0), fates=fates).run()
    # A lost control scores as the worst value seen: 2.
    assert passed(sim) == {"c0001": "margin" if rules is MARGIN else "idle"}
    check_accounts(sim)


def test_rules_never_pass_a_full_gate() -> None:
    sim = Simulation(plan(num_candidates=4, stages=staged(at_most=1), rules=MARGIN), levels(9.0, 4, 3, 2, 1)).run()
    assert len(passed(sim)) == 1


BOUND = {"health": [{"metric": "health", "at_least": 0.5}]}


@pytest.mark.parametrize("more", [{}, MARGIN, {"promote": {**HEALTH["promote"], "health_factor": 0.9}}])
def test_whoever_fails_a_health_check_is_never_promoted(more: dict[str, Any]) -> None:
    metrics = levels(5.0, 1, 2, 3, 4, health=lambda index: (1.0, 0.4, math.nan, 0.5, 0.6)[index])
    stages = staged(at_least=4)
    sim = Simulation(plan(num_candidates=4, stages=stages, rules={**BOUND, **more}), metrics).run()
    assert passed(sim).keys() == {"c0003", "c0004"}
    check_accounts(sim)


def test_where_all_are_unhealthy_the_control_alone_finishes() -> None:
    metrics = levels(5.0, 1, 2, 3, health=lambda _index: 0.0)
    sim = Simulation(plan(num_candidates=3, rules=BOUND), metrics).run()
    assert passed(sim) == {}
    check_accounts(sim)


def test_health_is_not_asked_of_those_that_have_finished() -> None:
    def metrics(index: int, _seed: int, step: int) -> dict[str, float]:
        return {"val_loss": float(index), "health": 1.0 if step < 120 else 0.0}

    sim = Simulation(plan(num_candidates=3, rules=BOUND), metrics).run()
    assert [c.id for c in sim.others() if c.stage == 2] == ["c0001"]


def test_a_stopped_member_counts_with_its_best_and_is_not_run_again() -> None:
    def metrics(index: int, _seed: int, step: int) -> dict[str, float]:
        rises = {"val_loss": 1.0 + step / 100}
        falls = {"val_loss": 3.0 - step / 1000}
        return {**(rises if index in (0, 1) else falls), "health": 1.0}

    sim = Simulation(plan(num_candidates=3, rules={"patience_steps": 30}), metrics).run()
    history = sim.history
    stopped = history.candidates["c0001"]
    assert {s: (m.status, m.step, m.curve.best) for s, m in stopped.members.items()} == {
        s: ("stopped", 40, 1.1) for s in SEEDS
    }
    assert stopped.stage == 2
    assert history.gates[1].score(1) == history.gates[2].score(1) == pytest.approx(1.1)
    starts = [e for e in sim.events if isinstance(e, JobStarted) and e.member == "c0001-s7"]
    assert [(e.stage, e.until_step, e.test) for e in starts] == [(0, 20, False), (1, 60, False), (2, 120, True)]
    # The control rises as well, but is never stopped.
    assert all(m.status == "completed" for m in history.candidates["c0000"].members.values())
    check_accounts(sim)


def test_verdicts_one_by_one() -> None:
    searched = plan(rules={"patience_steps": 20}, num_candidates=1)
    sim = Simulation(searched, levels(1.0, 1.0)).run()
    said = {(m, n): v for n, m, _, v in sim.verdicts}
    control = [v for (m, _), v in said.items() if m == MemberId("c0000", 7)]
    other = [v for (m, _), v in said.items() if m == MemberId("c0001", 7)]
    assert control == [
        *[Continue(20), Park()],
        *[Continue(60)] * 3,
        *[Park()],
        *[Continue(120)] * 5,
        Stop("completed", "end of the last stage"),
    ]
    assert other == [
        Continue(20),
        Park(),
        Stop("stopped", "patience: no new best for 20 steps (patience_steps = 20)"),
    ]


def test_divergence_is_a_verdict_with_its_step() -> None:
    sim = Simulation(plan(num_candidates=1), curve, fates={(0, 7): ("diverge", 30), (1, 7): ("diverge", 10)}).run()
    stops = [(m, v) for _, m, _, v in sim.verdicts if isinstance(v, Stop) and v.outcome == "diverged"]
    assert sorted(stops) == [
        (MemberId("c0000", 7), Stop("diverged", "non-finite loss at step 30")),
        (MemberId("c0001", 7), Stop("diverged", "non-finite loss at step 10")),
    ]


# --- order of work, budgets, direction -------------------------------------------------------------------------------


def test_the_control_comes_first_and_highest_stages_next() -> None:
    sim = Simulation(plan(num_candidates=6), by_index).run()
    assert [d.decision for d in sim.decisions[:2]] == [AskCandidate(), RunMember(MemberId("c0000", 7), 0, 20)]
    history = History(sim.plan)
    for event in sim.events:
        if isinstance(event, JobStarted) and not event.test:
            waiting = [p for p in history.pending if p.kind != 0]
            assert -event.stage == min(p.minus_stage for p in waiting if p.kind == waiting[0].kind)
        history.apply(event)


def test_a_slot_keeps_its_member_where_that_is_as_good() -> None:
    sim = Simulation(plan(num_candidates=1, stages=STAGES[2:]), curve)
    sim.record(SessionStarted(1, 0.0, "simulated", 1))
    sim.ask()
    first = next_job(sim.plan, sim.history)
    assert first == RunMember(MemberId("c0000", 7), 0, 120)
    assert next_job(sim.plan, sim.history, MemberId("c0000", 42)) == RunMember(MemberId("c0000", 42), 0, 120)
    assert next_job(sim.plan, sim.history, MemberId("c0099", 7)) == first


@pytest.mark.parametrize(
    ("budget", "most"),
    [({"max_steps": 1}, 0), ({"max_steps": 60}, 1), ({"max_slot_hours": 1e-9}, 0), ({"max_steps": 10**9}, 9)],
)
def test_a_budget_stops_new_candidates_and_finishes_the_started(budget: dict[str, float], most: int) -> None:
    sim = Simulation(plan(budget=budget), curve).run()
    check_accounts(sim)
    assert sim.history.num_candidates() == most
    for decided in sim.decisions:
        if isinstance(decided.decision, AskCandidate) and decided.num_events > 1:
            history = fold(sim.plan, sim.events[: decided.num_events])
            assert history.steps_spent < budget.get("max_steps", math.inf)
            assert history.slot_seconds < budget.get("max_slot_hours", math.inf) * 3600
    if most:
        assert any(c.stage == 2 for c in sim.others())


def test_steps_and_seconds_are_added_up_and_a_repeated_step_is_paid_but_counts_once() -> None:
    sim = Simulation(plan(num_candidates=2), curve).run()
    reports = [e for e in sim.events if isinstance(e, Reported)]
    tests = [e for e in sim.events if isinstance(e, ReadOfTest)]
    assert sim.history.steps_spent == 10 * len(reports)
    assert sim.history.slot_seconds == 1.5 * len(reports) + 0.5 * len(tests)
    again = fold(sim.plan, [*sim.events, reports[-1]])
    assert again.steps_spent == sim.history.steps_spent
    assert again.slot_seconds == sim.history.slot_seconds + 1.5


@pytest.mark.parametrize("rules", [{}, {**MARGIN, "patience_steps": 30}, HEALTH])
def test_a_maximised_objective_mirrors_a_minimised_one(rules: dict[str, Any]) -> None:
    low = plan(rules=rules)
    high: SearchPlan = low.model_copy(update={"mode": "max"})

    def negated(index: int, seed: int, step: int) -> dict[str, float]:
        metrics = curve(index, seed, step)
        return {**metrics, "val_loss": -metrics["val_loss"]}

    for seed in range(3):
        one = Simulation(low, curve, fates=fates_by_seed(seed, 0.2), slots=3, order=seed).run()
        two = Simulation(high, negated, fates=fates_by_seed(seed, 0.2), slots=3, order=seed).run()

        def mirrored(event: Event) -> Event:
            if isinstance(event, Promoted):
                score = None if event.score is None else -event.score
                return Promoted(event.candidate, event.gate, event.reason, score, event.rank, event.num_scored)
            if isinstance(event, Reported) and "val_loss" in event.metrics:
                metrics = {**event.metrics, "val_loss": -event.metrics["val_loss"]}
                return Reported(event.member, event.step, metrics, 1.0, 0.5, diverged=event.diverged)
            return event

        assert [mirrored(e) for e in two.events] == one.events
        assert [d.decision for d in two.decisions if not isinstance(d.decision, Promote)] == [
            d.decision for d in one.decisions if not isinstance(d.decision, Promote)
        ]


def test_a_stage_asks_for_the_first_seeds() -> None:
    assert [plan().stage_seeds(k) for k in range(3)] == [(7, 42), (7, 42), SEEDS]
    assert plan().stages[0] == Stage(until_step=20, num_seeds=2)
