"""Gates that learn how many go on: fewer where ranks last, more where they mean nothing; a budget spent to its end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.record.test_snapshot import check
from tests.worlds.plans import fields, fold, plan
from tests.worlds.scripted import Metrics, Simulation, check_accounts, next_job
from tune_rh.errors import PlanError
from tune_rh.plan.file import resolve_plan
from tune_rh.record.events import Event, PlanChanged, Promoted
from tune_rh.record.ranking import about_gates
from tune_rh.results.lines import line

SEEDS = [7, 42, 1337]
STEPS = [{"until_step": 20, "num_seeds": 1}, {"until_step": 60, "num_seeds": 1}, {"until_step": 120, "num_seeds": 1}]
SEEDS_LAST = [*STEPS, {"until_step": 120, "num_seeds": 2}, {"until_step": 120, "num_seeds": 3}]


def ranks(last: bool, noise: float = 0.0) -> Metrics:
    """Ranks that stay, or are drawn anew at each evaluation; seeds differ by up to ``noise``."""

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        level = random.Random(f"{index} {0 if last else step}").random()
        return {"val_loss": 2.0 + level + noise * random.Random(f"{index} {seed}").random() - step / 100, "health": 1.0}

    return metrics


def search(metrics: Metrics, slots: int = 1, **changes: Any) -> Simulation:
    given = {"gates": "adaptive", "num_candidates": 40, "eta": 3.0, "seeds": SEEDS, "stages": STEPS, **changes}
    return Simulation(plan(**given), metrics, slots=slots).run()


def test_fewer_go_on_where_ranks_last_and_more_where_they_mean_nothing() -> None:
    passed = {}
    for last in (True, False):
        sim = search(ranks(last), num_candidates=120)
        passed[last] = sum(p.gate == 0 and p.candidate != "c0000" for p in sim.promoted())
        learnt = sim.history.gates[0].learnt
        assert learnt is not None
        assert learnt.share < 1 / 3 if last else learnt.share > 1 / 3
        check_accounts(sim)
    plain = search(ranks(last=True), gates="promote", num_candidates=120)
    usual = sum(p.gate == 0 and p.candidate != "c0000" for p in plain.promoted())
    assert 0.7 * usual - 2 <= passed[True] < usual < passed[False] <= 2 * usual + 1


@pytest.mark.parametrize("slots", [1, 4])
def test_every_prefix_decides_the_same(slots: int) -> None:
    sim = search(ranks(last=False, noise=0.2), slots, stages=SEEDS_LAST, budget={"max_steps": 3000})
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision


def test_a_promotion_carries_what_the_gate_had_learnt_and_the_log_says_so() -> None:
    sim = search(ranks(last=True))
    last = [e for e in sim.promoted() if e.reason == "quota" and e.gate == 0][-1]
    assert last.share is not None
    assert last.agreement is not None
    assert 0.9 < last.agreement < 1
    said = line(sim.history, last)
    assert f"the gate lets {last.share:.0%} through, ranks agree by {last.agreement:.2f})" in said
    quota, num = sim.history.gates[0].quota(), len(sim.history.gates[0].order)
    assert about_gates(sim.history)[0].startswith(f"Gate 1 lets {quota} of {num} through: ranks agree by 0.9")
    plain = search(ranks(last=True), gates="promote")
    assert about_gates(plain.history) == ()
    assert all(e.share is None for e in plain.promoted())


def test_a_budget_is_spent_and_not_passed_by_more_than_what_gates_are_owed() -> None:
    # Halving alone would end at about 2,000 of the steps.
    for slots in (1, 4):
        sim = search(ranks(last=False), slots, num_candidates=12, budget={"max_steps": 1400})
        assert {p.reason for p in sim.promoted()} >= {"budget"}
        assert 1400 - 120 <= sim.history.steps_spent <= 1400 + 120
        check_accounts(sim)
        alone = search(ranks(last=False), slots, num_candidates=12)
        assert alone.history.steps_spent < 1400 - 120


def test_what_control_and_references_still_need_is_not_given_to_others() -> None:
    """Three configs that run to the end with three seeds take more than half of the budget, most of it late."""
    searched = {"stages": SEEDS_LAST, "references": ["good", "diverging"], "budget": {"max_steps": 2200}}
    sim = search(ranks(last=True, noise=0.5), 4, num_candidates=12, **searched)
    owed = 2 * 120  # the best candidate gets its seeds in any case
    assert sim.history.steps_spent <= 2200 + owed
    check_accounts(sim)


def test_seeds_come_last_where_there_is_a_budget() -> None:
    sim = search(ranks(last=True, noise=0.5), 2, num_candidates=12, stages=SEEDS_LAST, budget={"max_steps": 2200})
    promoted = [p for p in sim.promoted() if p.candidate != "c0000"]
    seeds = [i for i, p in enumerate(promoted) if p.gate >= 2]
    assert seeds
    assert min(seeds) > max(i for i, p in enumerate(promoted) if p.gate == 0)
    check_accounts(sim)


def test_no_seeds_for_those_that_cannot_be_the_best() -> None:
    """Levels ten times as far apart as seeds are: once their noise is known, nobody but the first gets a third seed."""

    def apart(index: int, seed: int, step: int) -> dict[str, float]:
        wobble = random.Random(f"{index} {seed}").random() / 50
        return {"val_loss": 2.0 + index + wobble - step / 1000, "health": 1.0}

    sim = search(apart, num_candidates=12, stages=SEEDS_LAST, eta=1.5)
    assert [p.candidate for p in sim.promoted() if p.gate == 3 and p.candidate != "c0000"] == ["c0001"]
    close = search(ranks(last=True, noise=4.0), num_candidates=12, stages=SEEDS_LAST, eta=1.5)
    assert len([p for p in close.promoted() if p.gate == 3 and p.candidate != "c0000"]) > 1


def test_a_plan_may_grow_while_its_gates_learn() -> None:
    sim = search(ranks(last=True), num_candidates=12)
    changed: list[Event] = [*sim.events, PlanChanged({"num_candidates": 60})]
    history = fold(sim.plan, changed)
    assert history.plan.num_candidates == 60
    assert next_job(history.plan, history) == next_job(history.plan, fold(sim.plan, changed))
    terms = history.plan.gate(0)
    assert terms.learning is not None
    assert terms.learning.num == 60
    for at in (len(sim.events) - 5, len(changed)):
        check(sim.plan, changed, at)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{**STEPS[0], "top": 2}, STEPS[1]]}, r'stages\[0\]\.top = 2: gates = "adaptive" learn how many'),
        ({"gates": "learning"}, r"gates = 'learning'"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        resolve_plan(fields(**{"gates": "adaptive", **changes}))


def test_races_and_comparisons_have_no_such_gates() -> None:
    race = {"unit": "member", "num_candidates": 0, "stages": [{"until_step": 20, "num_seeds": 3, "top": 1}, STEPS[1]]}
    with pytest.raises(PlanError, match="gates"):
        resolve_plan(fields(**{**race, "gates": "adaptive"}))


def test_an_old_promotion_has_no_share() -> None:
    from tune_rh.record.events import decode

    old = '{"event":"Promoted","candidate":"c0001","gate":0,"reason":"quota","score":1.0,"rank":0,"num_scored":3}'
    assert decode(old) == Promoted("c0001", 0, "quota", 1.0, 0, 3)
