"""What keeps a candidate from going on whatever its rank: health over several reports, and the gap to the control."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.decide.test_policy_gates import levels, passed
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import SEEDS, Fate, Metrics, Simulation, check_accounts, staged
from tune_rh.cli.tables import candidates_table
from tune_rh.cli.terminal import console
from tune_rh.decide.scheduler import Stop
from tune_rh.record.events import MemberId, SeedAdded

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


def test_a_seed_that_an_earlier_gate_bought_has_no_say_at_a_gate_that_it_did_not_reach() -> None:
    """It stands where that gate was: its last reports are of another step than those of the seeds that went on."""
    promote = {"margin": 9.0, "tolerance": 9.0, "healthier": [{"metric": "pulse", "margin": 0.0}]}
    rules = {"health": [{"metric": "pulse", "at_least": 0.5}], "promote": promote}

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        pulse = 1.0 if step > 20 else -2.0 if seed == 1337 else 2.0
        return {"val_loss": float(index or 9), "pulse": pulse}

    searched = plan(num_candidates=1, stages=staged(top=1), rules=rules)
    events = Simulation(searched, metrics).run().events
    waits = next(i for i in range(len(events)) if fold(searched, events[:i]).gates[0].waiting)
    past = [*events[:waits], SeedAdded("c0001", 0, 1337, 0.5)]
    sim = Simulation(searched, metrics, order=None, past=past).run()
    candidate = sim.history.candidates["c0001"]
    assert (candidate.stage, candidate.barred) == (2, "")
    assert sim.history.gates[0].values(1).keys() == set(SEEDS)
    assert sim.history.gates[1].health(1) == {"pulse": 1.0}
    check_accounts(sim)


# --- the gap to the control -------------------------------------------------------------------------------------------

GAP = {"gap": {"first": 0.125, "widening": 0.0625}}


def gapped(*behind: float, widens: float = 0.0) -> Metrics:
    """Each candidate as far behind the control's falling curve at the first evaluation, and more with every step."""

    def metrics(index: int, _seed: int, step: int) -> dict[str, float]:
        late = 0.0 if not index else behind[index - 1] + widens * (step - 10)
        return {"val_loss": 4.0 - step / 64 + late, "health": 1.0}

    return metrics


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_who_begins_too_far_behind_the_control_goes_no_further(slots: int) -> None:
    searched = plan(num_candidates=4, stages=staged(top=4), rules=GAP)
    sim = Simulation(searched, gapped(0.25, 0.125, 0.5, -0.25), slots=slots).run()
    check_accounts(sim)
    assert passed(sim).keys() == {"c0002", "c0004"}
    assert sim.history.candidates["c0001"].barred == (
        "gap: 0.25 behind the control at the first evaluation (at most 0.125)"
    )
    assert sum(map(sim.history.gates[0].is_out, range(20))) == 2
    assert len(sim.history.gates[0].order) == 4


def test_who_falls_back_from_where_it_began_goes_no_further() -> None:
    # From 0 at step 10 it is 1/512 a step: 0.02 wider at the first gate, 0.1 at the second.
    searched = plan(num_candidates=2, stages=staged(top=2), rules=GAP)
    sim = Simulation(searched, gapped(0.0, -1.0, widens=1 / 512)).run()
    assert passed(sim, 0).keys() == {"c0001", "c0002"}
    assert passed(sim, 1) == {}
    assert "gap: from -1 to -0.9023 behind" in sim.history.candidates["c0002"].barred
    check_accounts(sim)


def test_nobody_is_cut_by_the_gap_at_the_end() -> None:
    stages = [{"until_step": 20, "num_seeds": 2}, {"until_step": 120, "num_seeds": 2}]
    sim = Simulation(plan(num_candidates=1, stages=stages, rules=GAP), gapped(0.0, widens=1 / 64 / 8)).run()
    assert not any(c.barred for c in sim.others())
    assert [len(gate.waiting) for gate in sim.history.gates] == [0, 1]


def test_who_is_at_a_gate_before_the_control_is_filed_when_that_comes() -> None:
    sim = Simulation(plan(num_candidates=2, rules=GAP), gapped(0.0, 0.5), slots=6)
    assert sim.fill()
    for member in ("c0001-s7", "c0001-s42", "c0002-s7", "c0002-s42"):
        for _ in range(2):
            sim.advance(MemberId.parse(member))
    gate = sim.history.gates[0]
    assert (gate.order, sim.history.incomplete[0]) == ([], 3)
    for seed in (7, 42):
        for _ in range(2):
            sim.advance(MemberId("c0000", seed))
    assert [rank.entry for rank in gate.order] == [1, 2]
    assert (sum(map(gate.is_out, range(20))), sim.history.incomplete[0]) == (1, 0)
    while sim.fill():
        sim.advance(min(sim.history.running))
    check_accounts(sim)


def test_a_control_that_is_lost_keeps_nobody() -> None:
    lost: dict[tuple[int, int], Fate] = {(0, seed): ("diverge", 20) for seed in SEEDS}
    sim = Simulation(plan(num_candidates=2, stages=staged(top=2), rules=GAP), gapped(0.5, 0.25), fates=lost).run()
    assert passed(sim).keys() == {"c0001", "c0002"}
    # With one seed of the control left, that one counts: it is looked at where both are.
    sim = Simulation(
        plan(num_candidates=2, stages=staged(top=2), rules=GAP),
        lambda index, seed, step: gapped(0.5 if seed == 42 else 0.0, 0.25)(index, seed, step),
        fates={(0, 7): ("diverge", 20)},
    ).run()
    assert passed(sim) == {}
    check_accounts(sim)


@pytest.mark.parametrize("seed", range(4))
def test_the_gap_does_not_depend_on_what_becomes_of_the_control_later(seed: int) -> None:
    """It is a function of what was reported up to the gate: whoever arrives late is judged like the others."""
    searched = plan(num_candidates=6, stages=staged(top=6), rules=GAP)
    metrics = gapped(0.0, 0.25, 0.0, 0.25, 0.125, 0.25)
    fates: dict[tuple[int, int], Fate] = {(0, s): ("diverge", 30) for s in SEEDS}
    sim = Simulation(searched, metrics, fates=fates, slots=3, order=seed).run()
    assert passed(sim).keys() == {"c0001", "c0003", "c0005"}
    check_accounts(sim)


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
