"""Seeds at the gates: the soft band, seeds bought near the cut, the best of k, gates that stop at once, and races."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.decide.test_policy_gates import levels, passed
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import SEEDS, Fate, Metrics, Simulation, check_accounts, next_job, staged
from tune_rh.record.events import Evaluated, Promoted, SeedAdded
from tune_rh.record.history import History

# --- scores that are too close to tell -------------------------------------------------------------------------------

WIDE = [7, 42, 1337, 2024]


def close(index: int, seed: int, _step: int) -> dict[str, float]:
    """Candidates 0.01 apart, seeds 0.1 apart in a way of each one's own: nobody can be told from its neighbour."""
    wobble = ((index * 7 + WIDE.index(seed) * 5) % 11 - 5) / 50
    return {"val_loss": 1.0 + index / 100 + wobble, "health": 1.0}


def far(index: int, seed: int, _step: int) -> dict[str, float]:
    """The same seeds, candidates far apart."""
    return {"val_loss": close(index, seed, 0)["val_loss"] + 3.0 * index, "health": 1.0}


def scored(metrics: Metrics, slots: int = 1, **scoring: Any) -> Simulation:
    two = [{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 3}]
    searched = plan(num_candidates=24, seeds=WIDE, stages=two, scoring=scoring)
    return Simulation(searched, metrics, slots=slots).run()


def test_the_band_lets_those_on_that_cannot_be_told_from_the_last_above_the_cut() -> None:
    sim = scored(close, band=0.3, extra_seeds=0.0)
    reasons = list(passed(sim).values())
    assert reasons.count("band") >= 2
    assert len(reasons) <= 1.5 * 24 / 3
    assert "band" not in passed(scored(far, band=0.3, extra_seeds=0.0)).values()
    assert "band" not in passed(scored(close, band=0.0, extra_seeds=0.0)).values()


@pytest.mark.parametrize("slots", [1, 4])
def test_one_more_seed_is_bought_near_the_cut_within_its_share(slots: int) -> None:
    sim = scored(close, slots, band=0.0, extra_seeds=0.2)
    bought = [e for e in sim.events if isinstance(e, SeedAdded)]
    assert 1 <= len(bought) <= 0.2 * 2 * 24
    assert len({e.candidate for e in bought}) == len(bought)
    gate = sim.history.gates[0]
    for event in bought:
        index = sim.history.candidates[event.candidate].index
        assert event.seed == 1337
        assert 0.3 <= event.chance <= 0.7
        assert gate.values(index).keys() == {7, 42, 1337}
        member = sim.history.candidates[event.candidate].members[1337]
        assert member.step >= 20
    check_accounts(sim)
    assert not [e for e in scored(far, extra_seeds=0.2).events if isinstance(e, SeedAdded)]


def test_nobody_goes_on_while_its_seed_is_on_the_way() -> None:
    sim = scored(close, 3, band=0.3, extra_seeds=0.3)
    waiting: set[str] = set()
    for event in sim.events:
        if isinstance(event, SeedAdded):
            waiting.add(event.candidate)
        elif isinstance(event, Evaluated) and event.step == 20:
            member = event.member
            if member.seed == 1337:
                waiting.discard(member.candidate)
        elif isinstance(event, Promoted):
            assert event.candidate not in waiting
    assert any(isinstance(e, SeedAdded) for e in sim.events)


@pytest.mark.parametrize("slots", [1, 3])
def test_the_band_keeps_places_for_better_ones_that_wait_for_a_seed_and_goes_on(slots: int) -> None:
    sim = scored(close, slots, band=0.3, extra_seeds=0.2)
    history = History(sim.plan)
    kept = []
    for event in sim.events:
        if isinstance(event, Promoted) and event.reason == "band":
            gate = history.gates[event.gate]
            kept.append(sum(rank.score < event.score for rank in gate.held))
            assert gate.num_promoted + kept[-1] < math.floor(1.5 * len(gate.order) / sim.plan.eta)
        history.apply(event)
    assert any(kept)
    assert not all(kept)


def test_gates_that_stop_at_once_promote_on_arrival_or_never() -> None:
    sim = Simulation(
        plan(num_candidates=9, gates="stop", stages=staged(at_least=1)), levels(9, 5, 6, 4, 7, 3, 8, 2, 1, 9)
    ).run()
    # Arrivals and the place that lets through, ceil(n / 3): 1st of 1; 6 is 2nd of 2; 4 1st; 7 4th; 3 1st of 5; ...
    assert passed(sim) == {"c0001": "quota", "c0003": "quota", "c0005": "quota", "c0007": "quota", "c0008": "quota"}
    check_accounts(sim)


def test_with_the_best_of_k_one_lucky_seed_carries_a_candidate() -> None:
    # c0001: one of three seeds finds the good minimum. c0002: all three are middling, with the better mean.
    table = {1: (0.1, 1.0, 1.0), 2: (0.6, 0.6, 0.6), 3: (1.0, 1.0, 1.0)}

    def metrics(index: int, seed: int, _step: int) -> dict[str, float]:
        return {"val_loss": table[index][SEEDS.index(seed)] if index else 1.0, "health": 1.0}

    stages = [{"until_step": 20, "num_seeds": 3, "top": 1}, {"until_step": 60, "num_seeds": 3}]
    mean = Simulation(plan(num_candidates=3, stages=stages), metrics).run()
    assert passed(mean) == {"c0002": "top"}
    best = Simulation(
        plan(num_candidates=3, stages=stages, scoring={"objective": "best_of_k", "k": 3, "success": 0.2}), metrics
    ).run()
    assert passed(best) == {"c0001": "top"}
    assert best.history.gates[0].success == 0.2


# --- audits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
def test_an_audit_brings_losers_to_the_end_once_all_else_is_done(slots: int) -> None:
    searched = plan(num_candidates=12, stages=staged(at_most=2))
    plain = Simulation(searched, levels(9, *range(1, 13)), slots=slots).run()
    sim = Simulation(searched.model_copy(update={"audit": 3}), levels(9, *range(1, 13)), slots=slots).run()
    audits = [e for e in sim.events if isinstance(e, Promoted) and e.reason == "audit"]
    audited = {c.id for c in sim.others() if c.audited}
    assert len(audited) == 3
    assert {e.candidate for e in audits} == audited
    assert not audited & {c.id for c in plain.others() if c.stage}
    assert all(c.stage == 2 and sim.history.is_complete(c) for c in sim.others() if c.audited)
    first = sim.events.index(audits[0])
    done = fold(sim.plan, sim.events[:first])
    assert [c.stage for c in done.candidates.values()] == [c.stage for c in plain.history.candidates.values()]
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("scoring", [{}, {"band": 0.3, "extra_seeds": 0.5}])
def test_those_that_are_audited_open_no_gate_for_others(slots: int, scoring: dict[str, float]) -> None:
    # Two come to the second gate and one goes on. Four audited ones make six there, of which two would be the quota.
    stages = staged(eta=6.0, when_idle=False)
    searched = plan(num_candidates=12, stages=stages, audit=4, scoring={"band": 0.0, "extra_seeds": 0.0, **scoring})
    sim = Simulation(searched, levels(9, *range(1, 13)), slots=slots).run()
    reasons = [e.reason for e in sim.promoted() if e.reason != "control"]
    first = reasons.index("audit")
    assert reasons[first:] == ["audit"] * 8
    assert [c.id for c in sim.others() if c.stage == 2 and not c.audited] == ["c0001"]
    check_accounts(sim)


def test_an_audit_of_more_than_there_are_takes_all() -> None:
    sim = Simulation(plan(num_candidates=4, audit=99), levels(9, 1, 2, 3, 4)).run()
    assert all(c.stage == 2 for c in sim.others())


# --- races -----------------------------------------------------------------------------------------------------------


def race(slots: int = 1, fates: dict[tuple[int, int], Fate] | None = None, **changes: Any) -> Simulation:
    fields = {
        "unit": "member",
        "num_candidates": 0,
        "seeds": WIDE,
        "stages": [{"until_step": 20, "num_seeds": 4, "top": 2}, {"until_step": 60, "num_seeds": 4}],
        **changes,
    }

    def metrics(_index: int, seed: int, _step: int) -> dict[str, float]:
        return {"val_loss": {7: 3.0, 42: 1.0, 1337: 4.0, 2024: 2.0}[seed], "health": 1.0}

    return Simulation(plan(**fields), metrics, fates=fates or {}, slots=slots).run()


@pytest.mark.parametrize("slots", [1, 3])
def test_in_a_race_the_best_members_of_one_config_go_on(slots: int) -> None:
    sim = race(slots)
    assert [(e.candidate, e.seed, e.reason, e.rank, e.num_scored) for e in sim.promoted()] == [
        ("c0000", 42, "top", 0, 4),
        ("c0000", 2024, "top", 1, 4),
    ]
    members = sim.history.candidates["c0000"].members
    assert {seed: m.step for seed, m in members.items()} == {7: 20, 42: 60, 1337: 20, 2024: 60}
    assert {seed for seed, m in members.items() if m.tested} == {42, 2024}
    assert sim.history.control is None


def test_a_race_goes_on_with_the_next_best_when_a_member_is_lost() -> None:
    sim = race(fates={(1, 42): ("diverge", 10), (1, 2024): ("fail", 40)})
    assert [(e.seed, e.reason) for e in sim.promoted()] == [(2024, "top"), (7, "top")]
    assert sim.history.candidates["c0000"].members[7].step == 60
    everybody: dict[tuple[int, int], Fate] = {(1, seed): ("diverge", 10) for seed in WIDE}
    assert race(fates=everybody).promoted() == []


def test_every_prefix_of_a_race_gives_the_recorded_decisions_again() -> None:
    sim = race(2)
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
