"""Who passes a gate and why, when a member stops, in what order work is done: one scripted search after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.worlds.plans import fold, plan
from tests.worlds.scripted import (
    SEEDS,
    STAGES,
    Fate,
    Metrics,
    ScriptedSource,
    Simulation,
    check_accounts,
    curve,
    fates_by_seed,
    next_job,
    staged,
)
from tune_rh.decide.scheduler import AskCandidate, Continue, Park, RunMember, Stop
from tune_rh.plan.schema import Plan
from tune_rh.plan.stages import Stage
from tune_rh.record.events import Evaluated, Event, JobStarted, MemberId, Promoted
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.history import History


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
        ({"eta": 50.0, "when_idle": False}, {"c0001": "at_least"}),
        ({"eta": 4.0, "when_idle": False}, {"c0001": "quota"}),
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


@pytest.mark.parametrize("first", [{"eta": 50.0, "when_idle": False, "at_least": 2}, {"top": 2}])
def test_who_is_sure_to_pass_does_not_wait_for_an_idle_slot(first: dict[str, Any]) -> None:
    """A gate that nobody else can reach is filled before seeds that are new to the last stage begin."""
    sim = Simulation(plan(num_candidates=3, seeds=[7, 42, 1337], stages=staged(**first)), levels(5.5, 1, 2, 3)).run()
    assert passed(sim).keys() == {"c0001", "c0002"}
    fresh = [i for i, e in enumerate(sim.events) if isinstance(e, JobStarted) and e.member.seed == 1337]
    sure = [i for i, e in enumerate(sim.events) if isinstance(e, Promoted) and e.gate == 0]
    assert max(sure) < min(fresh)


def test_who_an_idle_slot_would_let_through_is_waited_for() -> None:
    """Of five at the first gate one passes by quota and one for an idle slot; the second gate decides over both."""
    first, second, last = staged(eta=4.0)
    stages = [first, {**second, "eta": 50.0, "when_idle": False}, last]
    sim = Simulation(plan(num_candidates=5, stages=stages), levels(5.5, 1, 2, 3, 4, 5)).run()
    assert passed(sim) == {"c0001": "quota", "c0002": "idle"}
    (best,) = [p for p in sim.promoted() if p.gate == 1 and p.candidate != "c0000"]
    assert (best.candidate, best.reason, best.num_scored) == ("c0001", "at_least", 2)


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
HEALTH = {"promote": {"margin": 9.0, "tolerance": 0.25, "healthier": [{"metric": "health", "factor": 1.5}]}}
NO_QUOTA = staged(eta=99.0)


def test_whoever_beats_the_control_by_the_margin_goes_on() -> None:
    metrics = levels(2.0, 1.5, 1.75, 1.76, 2.5)
    sim = Simulation(plan(num_candidates=4, stages=NO_QUOTA, rules=MARGIN), metrics).run()
    assert passed(sim) == {"c0001": "margin", "c0002": "margin"}


def test_whoever_is_as_good_and_healthier_goes_on() -> None:
    metrics = levels(2.0, 2.25, 2.0, 2.26, 2.1, health=lambda index: (1.0, 1.5, 1.4, 9.0, 2.0)[index])
    sim = Simulation(plan(num_candidates=4, stages=NO_QUOTA, rules=HEALTH), metrics).run()
    assert passed(sim) == {"c0001": "health", "c0004": "health", "c0002": "idle"}


def test_the_controls_health_is_that_of_the_gate_and_not_of_later() -> None:
    # The first candidate goes on by the margin, so the control moves on as well, and its health falls there to 0.1.
    # c0004 arrives last: healthier than the control is by then, but not than the control was at the gate.
    def metrics(index: int, _seed: int, step: int) -> dict[str, float]:
        health = (1.0 if step <= 20 else 0.1) if index == 0 else 1.2
        return {"val_loss": (20.0, 5.0, 30.0, 31.0, 20.0)[index], "health": health}

    sim = Simulation(plan(num_candidates=4, stages=NO_QUOTA, rules=HEALTH), metrics).run()
    reports = [e for e in sim.events if isinstance(e, Evaluated) and e.member.candidate == "c0000"]
    first_late = next(i for i, e in enumerate(sim.events) if e in reports and e.step > 20)
    arrived = max(i for i, e in enumerate(sim.events) if isinstance(e, Evaluated) and e.member.candidate == "c0004")
    assert passed(sim)["c0001"] == "margin"
    assert first_late < arrived
    assert passed(sim) == {"c0001": "margin"}


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


@pytest.mark.parametrize(
    "more", [{}, MARGIN, {"promote": {**HEALTH["promote"], "healthier": [{"metric": "health", "factor": 0.9}]}}]
)
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
    starts = [e for e in sim.events if isinstance(e, JobStarted) and e.member == MemberId("c0001", 7)]
    assert [(e.until_step, e.purpose) for e in starts] == [(20, "train"), (60, "train"), (120, "test")]
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
        if isinstance(event, JobStarted) and event.purpose == "train":
            waiting = [p for p in history.pending if p.kind != 0]
            assert -event.stage == min(p.minus_stage for p in waiting if p.kind == waiting[0].kind)
        history.apply(event)


def test_a_slot_keeps_its_member_where_that_is_as_good() -> None:
    searched = plan(num_candidates=1, stages=STAGES[2:])
    history = History(searched)
    added = ScriptedSource(searched).candidate(history)
    history.apply(added)
    first = next_job(searched, history)
    assert first == RunMember(MemberId("c0000", 7), 0, 120)
    assert next_job(searched, history, MemberId("c0000", 42)) == RunMember(MemberId("c0000", 42), 0, 120)
    assert next_job(searched, history, MemberId("c0099", 7)) == first


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
    reports = [e for e in sim.events if isinstance(e, Evaluated)]
    tests = [e for e in sim.events if isinstance(e, ReadOfTest)]
    assert sim.history.steps_spent == 10 * len(reports)
    assert sim.history.slot_seconds == 1.5 * len(reports) + 0.5 * len(tests)
    again = fold(sim.plan, [*sim.events, reports[-1]])
    assert again.steps_spent == sim.history.steps_spent
    assert again.slot_seconds == sim.history.slot_seconds + 1.5


@pytest.mark.parametrize("rules", [{}, {**MARGIN, "patience_steps": 30}, HEALTH, {"gap": {"first": 0.25}}])
def test_a_maximised_objective_mirrors_a_minimised_one(rules: dict[str, Any]) -> None:
    low = plan(rules=rules)
    high: Plan = low.model_copy(update={"mode": "max"})

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
            if isinstance(event, Evaluated) and "val_loss" in event.metrics:
                metrics = {**event.metrics, "val_loss": -event.metrics["val_loss"]}
                return Evaluated(event.member, event.step, metrics, 1.0, 0.5, diverged=event.diverged)
            return event

        assert [mirrored(e) for e in two.events] == one.events
        assert [d.decision for d in two.decisions if not isinstance(d.decision, Promoted)] == [
            d.decision for d in one.decisions if not isinstance(d.decision, Promoted)
        ]


def test_a_stage_asks_for_the_first_seeds() -> None:
    assert [plan().stage_seeds(k) for k in range(3)] == [(7, 42), (7, 42), SEEDS]
    assert plan().stages[0] == Stage(until_step=20, num_seeds=2)
