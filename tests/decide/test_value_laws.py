"""The laws of the policy, in drawn searches by the value of information: see `tests.decide.test_policy_laws`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.test_policy_laws import (
    LAWS,
    RULES,
    SEEDS,
    STEPS,
    WORLDS,
    Elastic,
    World,
    check_audits,
    check_counted_once,
    check_decisions_again,
    check_order_of_records,
    check_who_was_barred,
    drawn,
)
from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation, check_accounts
from tune_rh.decide.follow_ups import is_over_budget
from tune_rh.decide.scheduler import Finish, Wait
from tune_rh.decide.value import ValueScheduler
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.history import History


@st.composite
def searches(draw: st.DrawFn) -> Plan:
    """A search by value with anything that such a plan may have."""
    num_stages = draw(st.integers(1, 4))
    num_seeds = sorted(draw(st.lists(st.integers(1, 4), min_size=num_stages, max_size=num_stages)))
    steps = STEPS[-num_stages:]
    if num_stages > 1 and num_seeds[-2] < num_seeds[-1] and draw(st.booleans()):
        steps = [*steps[:-2], steps[-1], steps[-1]]  # steps first, then seeds
    bounds: list[dict[str, Any]] = []
    for _ in range(num_stages - 1):
        at_least = draw(st.integers(1, 3))
        capped = draw(st.booleans())
        bounds.append({"at_least": at_least} | ({"at_most": draw(st.integers(at_least, 4))} if capped else {}))
    rules = draw(RULES)
    rules.pop("promote", None)
    searched = plan(
        scheduler="value",
        num_candidates=draw(st.integers(1, 14)),
        eta=draw(st.sampled_from([1.5, 2.0, 3.0])),
        references=draw(st.sampled_from([[], [], ["good"], ["good", "diverging"]])),
        seeds=SEEDS,
        stages=[
            {"until_step": until, "num_seeds": num, **bound}
            for until, num, bound in zip(steps, num_seeds, [*bounds, {}], strict=True)
        ],
        rules=rules,
        audit=draw(st.sampled_from([0, 0, 1, 3])),
        budget=draw(st.sampled_from([{}, {"max_steps": 150}, {"max_steps": 1500}, {"max_slot_hours": 0.02}])),
    )
    required = ("solid",) if draw(st.booleans()) else ()
    return searched.model_copy(
        update={"require": required, "diagnose": required, "mode": draw(st.sampled_from(["min", "max"]))}
    )


def check_no_slot_waited(sim: Simulation) -> None:
    """Wherever it waited or finished within its budget, nothing could have started."""
    assert isinstance(sim.plan, Search)
    scheduler = ValueScheduler(sim.plan)
    history = History(sim.plan)
    waits = {d.num_events for d in sim.decisions if isinstance(d.decision, Wait | Finish)}
    for num, event in enumerate(sim.events, start=1):
        history.apply(event)
        if num not in waits:
            continue
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
    check_no_slot_waited(sim)
    check_counted_once(sim)
    check_audits(sim)
    check_who_was_barred(sim)
    check_decisions_again(sim, every=13)
    check_order_of_records(sim, every=max(1, len(sim.events) // 5))
    again = sim.taken_over(1 + number % len(sim.events), order=number)
    check_accounts(again)
    check_counted_once(again)
    check_audits(again)


@settings(max_examples=40, **LAWS)  # type: ignore[arg-type]
@given(searched=searches(), world=WORLDS)
def test_the_laws_hold_whatever_the_plan_and_whatever_becomes_of_it(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world), world.number)


@settings(max_examples=15, **LAWS)  # type: ignore[arg-type]
@given(searched=searches(), world=WORLDS)
def test_the_laws_hold_while_slots_come_and_go(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world, Elastic), world.number)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=3000, **LAWS)  # type: ignore[arg-type]
@given(searched=searches(), world=WORLDS)
def test_the_laws_hold_in_thousands_of_searches(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world), world.number)
