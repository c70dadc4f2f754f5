"""What a search found: funnel, ranking over seeds, cost."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import Any

import pytest

from analysis.view import FunnelRow, Spent, drawn
from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation
from trainables.api import test_metric as name_on_test
from tune_rh.record.events import CandidateAdded
from tune_rh.record.history import History
from tune_rh.record.members import Candidate
from tune_rh.record.ranking import best_member, describe, funnel, leader, ranking, spent

SEEDS = (7, 42, 1337)
# Spread over seeds around a candidate's level: wide for the second.
SPREAD = {0: 0.01, 1: 0.01, 2: 0.5, 3: 0.01}
LEVEL = {0: 2.0, 1: 1.0, 2: 0.9, 3: 3.0}
EVERYBODY: list[dict[str, Any]] = [
    {"until_step": 20, "num_seeds": 2, "top": 3},
    {"until_step": 60, "num_seeds": 3},
]


def metrics(index: int, seed: int, step: int) -> dict[str, float]:
    return {"val_loss": LEVEL[index] + SPREAD[index] * (SEEDS.index(seed) - 1) + 1 / step, "health": 1.0}


def searched(mode: str = "min", fates: Any = None, **changes: Any) -> History:
    sign = 1.0 if mode == "min" else -1.0
    of = plan(**{"num_candidates": 3, "stages": EVERYBODY, **changes}).model_copy(update={"mode": mode})

    def signed(index: int, seed: int, step: int) -> dict[str, float]:
        found = metrics(index, seed, step)
        return {**found, "val_loss": sign * found["val_loss"]}

    return Simulation(of, signed, fates=fates).run().history


def test_the_funnel_counts_who_entered_was_scored_and_passed() -> None:
    history = searched(stages=[{"until_step": 20, "num_seeds": 2, "top": 2}, *EVERYBODY[1:]])
    assert funnel(history) == [FunnelRow(20, 2, 3, 3, 2, 0, 0), FunnelRow(60, 3, 2, 2, 2, 0, 0)]
    assert funnel(History(plan())) == [
        FunnelRow(20, 2, 0, 0, 0, 0, 0),
        FunnelRow(60, 2, 0, 0, 0, 0, 0),
        FunnelRow(120, 3, 0, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_ranking_goes_by_the_pessimistic_bound(mode: str) -> None:
    sign = 1.0 if mode == "min" else -1.0
    rows = ranking(searched(mode))
    # The second has the better mean, but its seeds differ: one standard error to the worse it is behind.
    assert [row.candidate for row in rows] == ["c0001", "c0002", "c0000", "c0003"]
    for row in rows:
        index = int(row.candidate[1:])
        values = [sign * (LEVEL[index] + SPREAD[index] * i + 1 / 60) for i in (-1, 0, 1)]
        assert (row.num_seeds, row.num_lost) == (3, 0)
        assert row.val == pytest.approx(fmean(values))
        assert row.std == pytest.approx(stdev(values))
        assert row.entry.se == pytest.approx(stdev(values) / math.sqrt(3))
        assert row.bound == pytest.approx(row.val + sign * row.entry.se)
        assert row.test == 0.0
        assert row.test_std == 0.0
    assert sign * rows[1].val < sign * rows[0].val


def test_lost_seeds_count_as_the_worst_and_are_told() -> None:
    fates = {(1, 7): ("diverge", 50), (1, 42): ("fail", 30)}
    (row,) = [row for row in ranking(searched(fates=fates)) if row.candidate == "c0001"]
    worst = LEVEL[3] + SPREAD[3] + 1 / 60
    assert (row.num_seeds, row.num_lost) == (3, 2)
    assert row.val == pytest.approx((2 * worst + LEVEL[1] + SPREAD[1] + 1 / 60) / 3)
    assert math.isnan(row.std)
    assert math.isnan(row.entry.se)
    assert row.bound == row.val
    assert math.isnan(row.test_std)


def test_a_candidate_whose_seeds_all_got_lost_at_the_end_is_ranked_last() -> None:
    fates = {(1, seed): ("diverge", 50) for seed in SEEDS}
    rows = ranking(searched(fates=fates))
    assert rows[-1].candidate == "c0001"
    assert (rows[-1].num_lost, math.isnan(rows[-1].test)) == (3, True)


def test_one_seed_has_no_spread() -> None:
    rows = ranking(searched(stages=[{"until_step": 20, "num_seeds": 1}]))
    assert [row.candidate for row in rows] == ["c0002", "c0001", "c0000", "c0003"]
    assert all(math.isnan(row.std) and row.bound == row.val for row in rows)


def test_a_search_that_nobody_finished_has_no_ranking() -> None:
    assert ranking(History(plan())) == []
    sim = Simulation(plan(), metrics)
    assert sim.fill()
    assert ranking(sim.history) == []
    assert spent(sim.history) == Spent(0, 0.0, 3 * 120, 0.0)


def test_the_best_member_is_the_best_seed_that_was_not_lost() -> None:
    assert best_member(searched(), "c0001").seed == 7
    assert best_member(searched("max"), "c0001").seed == 7
    assert best_member(searched(fates={(1, 7): ("diverge", 50)}), "c0001").seed == 42
    with pytest.raises(ValueError, match="empty"):
        best_member(searched(fates={(1, seed): ("diverge", 10) for seed in SEEDS}), "c0001")


def test_what_was_spent_beside_what_no_gates_would_have_cost() -> None:
    history = searched(stages=[{"until_step": 20, "num_seeds": 2, "top": 1}, *EVERYBODY[1:]])
    done = spent(history)
    # Two candidates stop at 20 with two seeds; the control and the best run three seeds to 60.
    assert done.steps == 2 * 2 * 20 + 2 * 3 * 60
    assert done.ungated_steps == 4 * 3 * 60
    # 1.5 s a report (10 steps) and 0.5 s a reading of test, of which those that finished had one a seed.
    assert done.slot_seconds == pytest.approx(1.5 * done.steps / 10 + 0.5 * 6)
    finished = 3 * 60 * (27 + 1.5) / 180
    assert done.ungated_slot_seconds == pytest.approx(2 * finished + 2 * 3 * 60 * 0.15)


def test_names() -> None:
    def candidate(**fields: Any) -> Candidate:
        return Candidate(CandidateAdded("c0001", {}, "", **fields), 1)

    assert describe(candidate(origin="control", label="e4")) == "control: e4"
    assert describe(candidate(origin="preset", label="e5")) == "e5"
    assert describe(candidate(origin="sampler", params={"lr": 0.00213, "depth": 4})) == "lr=0.00213 depth=4"
    assert drawn({"lr": 1 / 3, "layout": "postfix", "flag": True}) == "lr=0.333 layout=postfix flag=True"
    assert drawn({}) == ""
    assert (name_on_test("val_nll"), name_on_test("loss")) == ("test_nll", "test_loss")


def test_the_leader_is_the_best_bound_at_the_end_and_the_best_reading_before_it() -> None:
    """The second has the best mean, and the widest spread: at the end the first leads, as in the ranking."""
    history = searched()
    ahead = leader(history)
    assert ahead is not None
    assert ahead.id == ranking(history)[0].candidate == "c0001"
    assert leader(History(history.plan)) is None
    sim = Simulation(plan(num_candidates=3, stages=EVERYBODY), metrics)
    found = set()
    while sim.fill():
        sim.advance(sorted(sim.history.running)[0])
        ahead = leader(sim.history)
        assert ahead is not None
        found.add(ahead.id)
    assert found >= {"c0000", "c0001"}


def test_the_leader_is_not_the_one_whose_seed_is_easy_for_all() -> None:
    """Seed 7 is 1 better for everybody. The second is worse than the first, and was only ever run with it."""
    stages = [{"until_step": 60, "num_seeds": 1, "top": 1}, {"until_step": 60, "num_seeds": 3}]

    def easy(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": (3.0, 1.0, 1.2)[index] - (seed == 7) + 0.01 * (index * seed % 5) + 1 / step, "health": 1.0}

    sim = Simulation(plan(num_candidates=2, stages=stages, scoring={"band": 0.3}), easy).run()
    gates = sim.history.gates
    assert gates[0].score(2) < gates[1].score(1)
    ahead = leader(sim.history)
    assert ahead is not None
    assert ahead.id == "c0001"
