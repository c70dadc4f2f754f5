"""The laws of the policy over plans and outcomes drawn at random: every rule at once, every kind of loss, any crash.

Other policy tests say what should happen in one case; these say what must hold in all. The fast profile draws a few,
`slow` some thousands.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.decide.test_policy import check_no_slot_waited, everything, shuffled
from tests.worlds.plans import fold, health_bounds, plan
from tests.worlds.scripted import ScriptedSource, Simulation, check_accounts, next_job, verdict
from tune_rh.plan.schema import Plan
from tune_rh.record.events import (
    CandidateAdded,
    Evaluated,
    Event,
    JobEnded,
    JobStarted,
    MemberId,
    SeedAdded,
    SessionStarted,
    SlotsChanged,
    decode,
    encode,
)
from tune_rh.record.members import Candidate
from tune_rh.record.rules import Curve, out_of_bounds

SEEDS = [7, 42, 1337, 2024]
STEPS = [20, 40, 70, 120]
_NEVER = 99


# --- plans -----------------------------------------------------------------------------------------------------------


@st.composite
def gates(draw: st.DrawFn) -> dict[str, Any]:
    """What the gate of one stage may say."""
    drawn: dict[str, Any] = {}
    if draw(st.booleans()):
        drawn["top"] = draw(st.integers(1, 4))
    elif draw(st.booleans()):
        drawn["eta"] = draw(st.sampled_from([1.1, 1.5, 2.0, 9.0]))
    drawn["at_least"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        drawn["at_most"] = draw(st.integers(drawn["at_least"], 4))
    drawn["when_idle"] = draw(st.booleans())
    return drawn


RULES = st.fixed_dictionaries(
    {},
    optional={
        "patience_steps": st.sampled_from([10, 30, 60]),
        "gap": st.fixed_dictionaries({"first": st.sampled_from([0.0, 0.25, 1.0]), "widening": st.floats(0, 0.5)}),
        "promote": st.fixed_dictionaries(
            {
                "margin": st.sampled_from([0.0, 0.25, 9.0]),
                "tolerance": st.sampled_from([0.0, 0.5]),
                "healthier": st.just([{"metric": "pulse", "margin": 0.25}, {"metric": "health", "factor": 0.9}]),
            }
        ),
        "stop": st.fixed_dictionaries(
            {
                "delta": st.sampled_from([0.0, 0.1]),
                "window": st.integers(2, 4),
                "slope_steps": st.sampled_from([20, 40]),
                "unless": st.lists(
                    st.sampled_from([{"metric": "pulse", "rose_by": 0.5}, {"metric": "health", "fell_by": 0.1}]),
                    max_size=2,
                ),
            }
        ),
        "health": health_bounds(0, 20, 50),
    },
)
SCORING = st.sampled_from(
    [
        {"band": 0.0, "extra_seeds": 0.0},
        {"band": 0.3, "extra_seeds": 0.5},
        {"band": 0.01, "extra_seeds": 1.0, "band_quota": 3.0},
        {"objective": "best_of_k", "k": 2},
        {"objective": "best_of_k", "k": 2, "success": 1.0},
    ]
)
BUDGETS = st.sampled_from([{}, {}, {"max_steps": 150}, {"max_steps": 700}, {"max_slot_hours": 0.02}])


@st.composite
def searches(draw: st.DrawFn) -> Plan:
    """A search with anything that a plan may have; not a race, nor a comparison."""
    num_stages = draw(st.integers(1, 4))
    num_seeds = sorted(draw(st.lists(st.integers(1, 4), min_size=num_stages, max_size=num_stages)))
    steps = STEPS[-num_stages:]
    for k in range(num_stages - 1, 0, -1):
        if num_seeds[k] > num_seeds[k - 1] and draw(st.booleans()):
            steps[k - 1] = steps[k]
    # Either each gate has bounds of its own, or quotas are large enough for a band, and for seeds to be bought.
    by_quota = draw(st.booleans())
    bounds = [{} if by_quota else draw(gates()) for _ in range(num_stages - 1)]
    cut_at_once = num_stages > 1 and draw(st.integers(0, 3)) == 0
    tables: list[dict[str, Any]] = []
    if num_stages > 1 and not cut_at_once:
        for after in sorted(draw(st.lists(st.integers(0, num_stages - 2), max_size=3))):
            enters, num = draw(st.integers(0, num_stages - 1)), draw(st.integers(1, 2))
            tables.append({"after": after, "enters": enters, "changes": [{"rate": 0.5}] * num})
            for gate in bounds[enters:after]:
                gate.pop("top", None)
    has_top = any("top" in gate for gate in bounds)
    searched = plan(
        num_candidates=draw(st.integers(5, 14) if by_quota else st.integers(0 if tables else 1, 7)),
        eta=draw(st.sampled_from([1.5, 2.0, 3.0])),
        references=draw(st.sampled_from([[], [], ["good"], ["good", "diverging"]])),
        seeds=SEEDS,
        stages=[
            {"until_step": until, "num_seeds": num, **bound}
            for until, num, bound in zip(steps, num_seeds, [*bounds, {}], strict=True)
        ],
        gates="stop" if cut_at_once else "promote" if has_top or draw(st.booleans()) else "adaptive",
        follow_ups=tables,
        rules=draw(RULES),
        scoring=draw(SCORING),
        audit=draw(st.sampled_from([0, 0, 1, 3])),
        budget=draw(BUDGETS),
    )
    required = ("solid",) if draw(st.booleans()) else ()
    return searched.model_copy(
        update={"require": required, "diagnose": required, "mode": draw(st.sampled_from(["min", "max"]))}
    )


# --- what becomes of them --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """What is reported, and what is lost, as a function of one number; all of it the same however it is asked for."""

    number: int
    share_lost: float
    share_odd: float
    noise: float
    slots: int
    space: int

    def draw(self, *place: object) -> random.Random:
        """Random numbers of one place."""
        return random.Random(f"{self.number} {place}")

    def metrics(self, index: int, seed: int, step: int) -> dict[str, float]:
        """Few levels, so that some tie; now and then a value that is no number, or a metric that is not there."""
        level, at = self.draw(index), self.draw(index, seed, step)
        value = level.randint(0, 8) / 8 + self.noise * self.draw(index, seed).randint(-2, 2)
        value += math.exp(-step / 40)
        reported = {"val_loss": value, "health": level.randint(0, 3) / 2, "pulse": at.randint(0, 5) / 4}
        if at.random() < self.share_odd:
            reported["val_loss"] = at.choice([math.nan, math.inf, -math.inf, value + 1])
        if at.random() < self.share_odd:
            del reported[at.choice(["health", "pulse"])]
        return reported

    def fate(self, index: int, seed: int) -> tuple[Any, int]:
        """How and when a member is lost."""
        at = self.draw("fate", index, seed)
        # Some configs never come through, with any seed.
        share = 1.0 if self.draw("doomed", index).random() < self.share_lost / 2 else self.share_lost
        return (at.choice(["fail", "diverge"]), 10 * at.randint(1, 12)) if at.random() < share else ("none", 10**9)


WORLDS = st.builds(
    World,
    number=st.integers(0, 10**6),
    share_lost=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    share_odd=st.sampled_from([0.0, 0.0, 0.2]),
    noise=st.sampled_from([1 / 32, 1 / 4]),
    slots=st.integers(1, 6),
    space=st.sampled_from([3, 10**9]),
)


class Elastic(Simulation):
    """A search whose slots come and go."""

    def advance(self, member: MemberId) -> None:
        rng = random.Random(len(self.events))
        if rng.random() < 0.2:
            self.session.on_nodes((), (), rng.randint(1, 6))
        super().advance(member)


def drawn(searched: Plan, world: World, kind: type[Simulation] = Simulation) -> Simulation:
    """A search in a `World`, run to its end: diagnoses may fail or crash as well."""
    refused = {number for number in range(9) if world.draw("refused", number).random() < 0.2}

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        reported = world.metrics(index, seed, step)
        return reported if searched.mode == "min" else {**reported, "val_loss": -reported["val_loss"]}

    def diagnosis(candidate: Candidate) -> dict[str, str] | None:
        verdict = world.draw("look", candidate.id).choice(["pass", "pass", "fail", "crash"])
        return None if verdict == "crash" else {"solid": verdict}

    return kind(
        searched,
        metrics,
        fates={(i, seed): world.fate(i, seed) for i in range(20) for seed in SEEDS},
        slots=world.slots,
        order=world.number,
        source=ScriptedSource(searched, space=world.space, refused=refused),
        diagnosis=diagnosis,
    ).run()


# --- laws ------------------------------------------------------------------------------------------------------------


def check_decisions_again(sim: Simulation, every: int = 1) -> None:
    """Every prefix of the journal, as it is written, gives the recorded decisions and verdicts again."""
    lines = [encode(event) for event in sim.events]
    read = [decode(line) for line in lines]
    assert [encode(event) for event in read] == lines
    for decided in sim.decisions[::every]:
        history = fold(sim.plan, read[: decided.num_events])
        assert next_job(sim.plan, history, decided.prefer) == decided.decision
    for num_events, member, _, said in sim.verdicts[::every]:
        assert verdict(sim.plan, fold(sim.plan, read[:num_events]), member) == said


def check_order_of_records(sim: Simulation, every: int) -> None:
    """Records of different members change places, and nothing else changes.

    Gates that cut on arrival go by the order, and a required check begins because of the record before it.
    """
    if any(sim.plan.gate(k).cuts for k in range(len(sim.plan.stages))) or sim.plan.require:
        return
    for cut in range(len(sim.events), 0, -every):
        events = sim.events[:cut]
        one, two = fold(sim.plan, events), fold(sim.plan, shuffled(events, cut))
        assert everything(one) == everything(two)
        assert next_job(sim.plan, two) == next_job(sim.plan, one)


def check_counted_once(sim: Simulation) -> None:
    """One candidate a gate, one start at a time, one report a step, one seed more a gate, one reading of test."""
    promoted = [(p.candidate, p.gate, p.seed) for p in sim.promoted()]
    assert len(set(promoted)) == len(promoted)
    bought = [(e.candidate, e.gate) for e in sim.events if isinstance(e, SeedAdded)]
    assert len(set(bought)) == len(bought)
    added = [e.candidate for e in sim.events if isinstance(e, CandidateAdded)]
    assert len(set(added)) == len(added)
    running: set[MemberId] = set()
    slots = 0
    for event in sim.events:
        if isinstance(event, SessionStarted | SlotsChanged):
            slots = event.slots
        if isinstance(event, SessionStarted):
            running.clear()
        elif isinstance(event, JobStarted):
            assert event.member not in running
            running.add(event.member)
            assert len(running) <= slots
        elif isinstance(event, JobEnded):
            running.remove(event.member)
    reports = [(e.member, e.step) for e in sim.events if isinstance(e, Evaluated)]
    assert len(set(reports)) == len(reports)
    assert sim.history.steps_spent == sum(m.step for c in sim.history.candidates.values() for m in c.members.values())


def check_audits(sim: Simulation) -> None:
    """Once the first of those that were cut is brought to the end for an audit, nobody else goes on."""
    others = [p for p in sim.promoted() if p.reason not in ("control", "reference")]
    reasons = [p.reason for p in others]
    if "audit" in reasons:
        assert set(reasons[reasons.index("audit") :]) == {"audit"}
    assert len({p.candidate for p in others if p.reason == "audit"}) <= sim.plan.audit


def check_who_was_barred(sim: Simulation) -> None:
    """Health and gap again, from the curves of the seeds that a gate asked for, as far as that gate."""
    plan, history = sim.plan, sim.history
    until = {(j.member, j.stage): j.until_step for j in sim.events if isinstance(j, JobStarted)}
    assert all(step == plan.stages[stage].until_step for (_, stage), step in until.items())
    lost_in = _stages_of_losses(sim.events)
    for k, gate in enumerate(history.gates[:-1]):
        for candidate in sim.others():
            if candidate.stage < k:
                continue
            seeds = gate.values(candidate.index).keys()
            alive = [seed for seed in seeds if lost_in.get(MemberId(candidate.id, seed), _NEVER) > k]
            curves = [_until(candidate.members[seed].curve, plan.stages[k].until_step) for seed in alive]
            sick = out_of_bounds(plan.rules.health, curves) is not None
            none = all(value is None for value in gate.values(candidate.index).values())
            assert none == all(not math.isfinite(curve.best) for curve in curves)
            if sick or none:
                assert gate.is_out(candidate.index)
                assert candidate.stage == k
            elif plan.gap is None and not plan.require:
                assert not gate.is_out(candidate.index)


def _stages_of_losses(events: list[Event]) -> dict[MemberId, int]:
    """Member -> stage in which it diverged or failed."""
    at, lost = dict[MemberId, int](), dict[MemberId, int]()
    for event in events:
        if isinstance(event, JobStarted):
            at[event.member] = event.stage if event.purpose == "train" else _NEVER
        elif isinstance(event, JobEnded) and event.outcome in ("diverged", "failed"):
            lost[event.member] = at[event.member]
    return lost


def _until(curve: Curve, step: int) -> Curve:
    cut = Curve()
    for at, value, metrics in zip(curve.steps, curve.values, curve.metrics, strict=True):
        if at <= step:
            cut.add(at, value, metrics)
    return cut


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


LAWS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=60, **LAWS)  # type: ignore[arg-type]
@given(searched=searches(), world=WORLDS)
def test_the_laws_hold_whatever_the_plan_and_whatever_becomes_of_it(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world), world.number)


@settings(max_examples=20, **LAWS)  # type: ignore[arg-type]
@given(searched=searches(), world=WORLDS)
def test_the_laws_hold_while_slots_come_and_go(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world, Elastic), world.number)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=6000, **LAWS)  # type: ignore[arg-type]
@given(searched=searches(), world=WORLDS)
def test_the_laws_hold_in_thousands_of_searches(searched: Plan, world: World) -> None:
    check_all(drawn(searched, world), world.number)
