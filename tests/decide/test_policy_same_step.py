"""Stages that end where the one before ends, with more seeds: halving over seeds at full length."""

from __future__ import annotations

from typing import Any

import pytest

from tests.decide.test_policy_gates import levels, passed
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import Fate, Simulation, check_accounts, next_job
from tune_rh.plan.cost import StageCost, expected, ungated_steps
from tune_rh.record.events import Evaluated, JobStarted, MemberId
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.ranking import funnel, ranking

SEEDS = [7, 42, 1337]
STEPS_THEN_SEEDS = [
    {"until_step": 20, "num_seeds": 1, "eta": 2.0},
    {"until_step": 60, "num_seeds": 1, "eta": 2.0},
    {"until_step": 60, "num_seeds": 3},
]
VALUES = (9.0, 4, 3, 2, 1, 5, 6, 7, 8)


def search(slots: int = 1, fates: dict[tuple[int, int], Fate] | None = None, **changes: Any) -> Simulation:
    fields = {"num_candidates": 8, "seeds": SEEDS, "stages": STEPS_THEN_SEEDS, **changes}
    return Simulation(plan(**fields), levels(*VALUES), fates=fates, slots=slots).run()


@pytest.mark.parametrize("slots", [1, 3])
def test_seeds_are_earned_at_the_last_step(slots: int) -> None:
    sim = search(slots)
    at_end = passed(sim, 1)
    assert set(at_end) >= {"c0004"}
    for candidate in sim.others():
        assert list(candidate.members) == SEEDS[: 3 if candidate.id in at_end else 1]
    check_accounts(sim)


def test_no_member_trains_twice_and_test_is_read_once_where_all_seeds_are_in() -> None:
    sim = search()
    told = [(e.member, e.step) for e in sim.events if isinstance(e, Evaluated)]
    assert len(set(told)) == len(told)
    read = [e.member for e in sim.events if isinstance(e, ReadOfTest)]
    last = {c.id for c in sim.history.candidates.values() if c.stage == 2}
    assert sorted(read) == sorted(MemberId(name, seed) for name in last for seed in SEEDS)
    jobs = [e for e in sim.events if isinstance(e, JobStarted) and e.purpose == "train"]
    assert [e.until_step for e in jobs if e.member == MemberId("c0004", 7)] == [20, 60]
    assert [e.until_step for e in jobs if e.member == MemberId("c0004", 42)] == [60]


def test_the_ranking_is_of_those_with_all_seeds_and_the_funnel_says_who_had_one() -> None:
    sim = search()
    ranked = ranking(sim.history)
    assert ranked[0].candidate == "c0004"
    assert {row.num_seeds for row in ranked} == {3}
    assert [(row.until_step, row.num_seeds) for row in funnel(sim.history)] == [(20, 1), (60, 1), (60, 3)]


def test_a_cost_is_that_of_the_further_seeds() -> None:
    searched = plan(num_candidates=8, seeds=SEEDS, stages=STEPS_THEN_SEEDS)
    assert expected(searched) == [
        StageCost(20, 1, 9, 9, 9 * 20),
        StageCost(60, 1, 5, 5, 5 * 40),
        StageCost(60, 3, 3, 9, 3 * 2 * 60),
    ]
    assert ungated_steps(searched) == 9 * 3 * 60


@pytest.mark.parametrize("slots", [1, 2])
def test_a_lost_seed_is_worst_and_every_prefix_decides_the_same(slots: int) -> None:
    lost: dict[tuple[int, int], Fate] = {(4, 42): ("diverge", 30), (3, 7): ("fail", 60), (0, 1337): ("fail", 10)}
    sim = search(slots, lost)
    check_accounts(sim)
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
