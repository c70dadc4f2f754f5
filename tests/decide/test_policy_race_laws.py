"""The laws of the policy over races drawn at random: every kind of loss, any crash of the driver."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.test_policy_laws import LAWS, check_counted_once, check_decisions_again, check_order_of_records
from tests.worlds.drawn import RULES, SEEDS, STEPS, WORLDS, World, drawn
from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation
from tune_rh.plan.schema import Plan


@st.composite
def races(draw: st.DrawFn) -> Plan:
    """A race of four seeds, with or without rules that stop or bar a member."""
    num_stages = draw(st.integers(1, 4))
    tops = sorted(draw(st.lists(st.integers(1, 4), min_size=num_stages - 1, max_size=num_stages - 1)), reverse=True)
    rules = draw(RULES)
    searched = plan(
        unit="member",
        num_candidates=0,
        seeds=SEEDS,
        stages=[
            {"until_step": until, "num_seeds": 4, **top}
            for until, top in zip(STEPS[-num_stages:], [*({"top": top} for top in tops), {}], strict=True)
        ],
        rules={name: rule for name, rule in rules.items() if name not in ("gap", "promote")},
    )
    return searched.model_copy(update={"mode": draw(st.sampled_from(["min", "max"]))})


def check_race(sim: Simulation) -> None:
    """Every member stands at the end of its stage or has ended, and every gate let its ``top`` through if it could."""
    plan, history = sim.plan, sim.history
    assert not history.running
    assert not history.pending
    assert history.incomplete == [0] * len(plan.stages)
    members = history.candidates["c0000"].members.values()
    for member in members:
        assert history.has_reached(member)
        assert (member.tested is not None) == (member.stage == plan.last_stage and not member.lost)
    for k, (stage, gate) in enumerate(zip(plan.stages[:-1], history.gates, strict=False)):
        assert gate.num_promoted == sum(member.stage > k for member in members)
        assert not gate.waiting or gate.num_promoted >= (stage.top or 0)
        # More than `top` only in place of those that were lost later.
        assert gate.num_promoted <= (stage.top or 0) + gate.num_lost_later


@settings(max_examples=40, **LAWS)  # type: ignore[arg-type]
@given(searched=races(), world=WORLDS)
def test_the_laws_hold_in_races(searched: Plan, world: World) -> None:
    sim = drawn(searched, world)
    for one in (sim, sim.taken_over(1 + world.number % len(sim.events))):
        check_race(one)
        check_counted_once(one)
    check_decisions_again(sim, every=5)
    check_order_of_records(sim, every=max(1, len(sim.events) // 5))
