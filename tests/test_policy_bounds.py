"""What keeps a candidate from going on whatever its rank: health over several reports, and the gap to the control."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.plans import plan
from tests.simulated import SEEDS, Metrics, Simulation, check_accounts, staged
from tests.test_policy_gates import levels, passed
from tune_rh.display import candidates_table, console
from tune_rh.policy import Stop

# --- health ----------------------------------------------------------------------------------------------------------

COLLAPSE = {"metric": "pulse", "at_least": 0.6, "in_a_row": 3, "after_step": 20, "required": False}


def pulses(*by_index: dict[int, float]) -> Metrics:
    """Control first; each candidate's pulse by step (1.0 where it is not said), its loss by its index."""

    def metrics(index: int, _seed: int, step: int) -> dict[str, float]:
        return {"val_loss": float(index or 9), "pulse": by_index[index].get(step, 1.0)}

    return metrics


def searched(metrics: Metrics, num: int, slots: int = 1, **bound: Any) -> Simulation:
    rules = {"health": [{**COLLAPSE, **bound}]}
    sim = Simulation(plan(num_candidates=num, stages=staged(top=num), rules=rules), metrics, slots=slots).run()
    check_accounts(sim)
    return sim


@pytest.mark.parametrize("slots", [1, 3])
def test_a_collapse_that_lasts_keeps_a_candidate_from_the_next_gate(slots: int) -> None:
    lasts, ends, early = {40: 0.1, 50: 0.1, 60: 0.1}, {30: 0.1, 40: 0.1, 50: 0.1}, {10: 0.1, 20: 0.1}
    sim = searched(pulses({}, lasts, ends, early), 3, slots)
    # Nothing counts at the first gate; at the second only c0001 has three such reports on end.
    assert passed(sim, 0).keys() == {"c0001", "c0002", "c0003"}
    assert "c0001" not in passed(sim, 1)
    assert passed(sim, 1)
    first = sim.history.candidates["c0001"]
    assert first.barred == "health: pulse = 0.1 for 3 reports (at least 0.6)"
    assert {m.status for m in first.members.values()} == {"idle"}


def test_a_candidate_that_is_barred_is_shown_as_such() -> None:
    sim = searched(pulses({}, {40: 0.1, 50: 0.1, 60: 0.1}, {}), 2)
    with (to := console()).capture() as caught:
        to.print(candidates_table(sim.history))
    assert "[health: pulse = 0.1 for 3 reports (at least 0.6)]" in caught.get()


@pytest.mark.parametrize("slots", [1, 3])
def test_a_member_that_collapses_is_stopped_where_it_stands_and_the_control_is_not(slots: int) -> None:
    gone = {step: 0.1 for step in range(10, 130, 10)}
    sim = searched(pulses(gone, gone, {}), 2, slots, stops=True)
    stops = {(str(m), v) for _, m, _, v in sim.verdicts if isinstance(v, Stop) and v.outcome == "stopped"}
    reason = "health: pulse = 0.1 for 3 reports (at least 0.6)"
    assert stops == {(f"c0001-s{seed}", Stop("stopped", reason)) for seed in SEEDS[:2]}
    assert {m.step for m in sim.history.candidates["c0001"].members.values()} == {50}
    assert passed(sim, 1).keys() == {"c0002"}
    assert all(m.status == "completed" for m in sim.history.candidates["c0000"].members.values())


def test_one_seed_that_collapses_is_stopped_alone() -> None:
    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": float(index or 9), "pulse": 0.2 if (index, seed) == (1, 7) else 1.1}

    sim = searched(metrics, 1, stops=True)
    members = sim.history.candidates["c0001"].members
    assert {seed: (m.status, m.step) for seed, m in members.items()} == {
        7: ("stopped", 50),
        42: ("completed", 120),
        1337: ("completed", 120),
    }


@pytest.mark.parametrize("required", [True, False])
def test_a_model_without_the_metric_is_judged_only_where_it_must_have_it(required: bool) -> None:
    def metrics(index: int, _seed: int, _step: int) -> dict[str, float]:
        return {"val_loss": float(index or 9), **({"pulse": 1.0} if index != 1 else {})}

    sim = searched(metrics, 2, required=required)
    assert ("c0001" in passed(sim, 1)) == (not required)


def test_in_a_race_a_member_that_is_out_of_bounds_does_not_go_on() -> None:
    stages = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    raced = plan(unit="member", num_candidates=0, stages=stages, rules={"health": [{"metric": "pulse", "at_least": 1}]})

    def metrics(_index: int, seed: int, _step: int) -> dict[str, float]:
        return {"val_loss": float(SEEDS.index(seed)), "pulse": 0.0 if seed == 7 else 1.0}

    sim = Simulation(raced, metrics).run()
    assert [(p.seed, p.reason) for p in sim.promoted()] == [(42, "top"), (1337, "top")]


# --- ways of being healthier -----------------------------------------------------------------------------------------


def test_whoever_is_as_good_and_healthier_in_any_of_several_ways_goes_on() -> None:
    rules = {
        "promote": {
            "margin": 9.0,
            "tolerance": 0.25,
            "healthier": [{"metric": "pulse", "margin": 0.03}, {"metric": "health", "factor": 1.1}],
        }
    }
    known = {
        0: {"pulse": 0.8, "health": 100.0},
        1: {"pulse": 0.84, "health": 50.0},
        2: {"pulse": 0.1, "health": 111.0},
        3: {"pulse": 0.82, "health": 109.0},
        4: {"health": 111.0},
        5: {"pulse": math.nan, "health": math.nan},
    }

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        return {**levels(2.0, 2.2, 2.2, 2.0, 2.1, 2.1)(index, seed, step), **known[index]}

    sim = Simulation(plan(num_candidates=5, stages=staged(eta=99.0), rules=rules), metrics).run()
    assert {name: why for name, why in passed(sim).items() if why == "health"}.keys() == {"c0001", "c0002", "c0004"}
