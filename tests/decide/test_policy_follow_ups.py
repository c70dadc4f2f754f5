"""Follow-ups around the winner of a gate, and references: who wins, who waits for whom, and who is in nobody's way."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decide.test_policy import check_no_slot_waited
from tests.decide.test_policy_gates import levels, passed
from tests.decide.test_policy_required import diagnosed
from tests.worlds.plans import fold, health_bounds, plan
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
from tune_rh.decide.scheduler import AskFollowUp
from tune_rh.plan.schema import Plan
from tune_rh.record.events import CandidateAdded, FollowUpSkipped, Promoted

TOPS = [{**STAGES[0], "top": 2}, {**STAGES[1], "top": 2}, STAGES[2]]
# Phase one: three presets beside the control, then another top-k with the best of them. Phase two: the best two of all,
# and other numbers of experts around the winner.
LEAN: dict[str, Any] = {
    "num_candidates": 3,
    "stages": TOPS,
    "follow_ups": [
        {"after": 0, "changes": [{"rate": 0.1}]},
        {"after": 0, "enters": 1, "changes": [{"rate": 0.2}, {"rate": 0.3}]},
    ],
}


def run(
    metrics: Metrics, slots: int = 1, fates: dict[tuple[int, int], Fate] | None = None, **changes: Any
) -> Simulation:
    order, refused = changes.pop("order", 0), changes.pop("refused", ())
    searched = plan(**{**LEAN, **changes})
    source = ScriptedSource(searched, refused=refused)
    sim = Simulation(searched, metrics, slots=slots, fates=fates, order=order, source=source).run()
    check_accounts(sim)
    check_no_slot_waited(sim)
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
    return sim


def added(sim: Simulation) -> dict[str, tuple[str | None, str]]:
    """Of each follow-up its winner and what it is called."""
    events = [e for e in sim.events if isinstance(e, CandidateAdded) and e.origin == "follow_up"]
    return {e.candidate: (e.parent, e.label) for e in events}


# --- who wins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_the_best_of_a_first_phase_is_varied_and_the_best_of_all_goes_on(slots: int) -> None:
    # Control, three presets, the first follow-up (the best so far), and two around it.
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), slots)
    assert added(sim) == {
        "c0004": ("c0002", "c0002 with rate = 0.1"),
        "c0005": ("c0004", "c0004 with rate = 0.2"),
        "c0006": ("c0004", "c0004 with rate = 0.3"),
    }
    # At the first gate exactly the best two of the four that compete, and the two others beside them.
    assert passed(sim, 0) == {"c0004": "top", "c0002": "top", "c0005": "follow_up", "c0006": "follow_up"}
    assert passed(sim, 1) == {"c0006": "top", "c0004": "top"}
    assert [len(gate.order) for gate in sim.history.gates] == [4, 4, 2]
    assert sim.history.num_candidates() == 3


def test_the_control_may_win_and_takes_a_tie() -> None:
    assert added(run(levels(1.0, 3.0, 2.0, 5.0, 6.0, 6.0, 6.0)))["c0004"][0] == "c0000"
    assert added(run(levels(2.0, 3.0, 2.0, 5.0, 6.0, 6.0, 6.0)))["c0004"][0] == "c0000"
    assert added(run(levels(9.0, 3.0, 2.0, 2.0, 6.0, 6.0, 6.0)))["c0004"][0] == "c0002"


def test_who_may_not_pass_the_gate_does_not_win_it() -> None:
    sim = run(
        levels(9.0, 3.0, 1.0, 5.0, 6.0, 6.0, 6.0, health=lambda index: float(index != 2)),
        rules={"health": [{"metric": "health", "at_least": 0.5}]},
    )
    assert added(sim)["c0004"][0] == "c0001"
    lost: dict[tuple[int, int], Fate] = {(2, seed): ("diverge", 20) for seed in SEEDS}
    assert added(run(levels(9.0, 3.0, 1.0, 5.0, 6.0, 6.0, 6.0), fates=lost))["c0004"][0] == "c0001"
    everybody: dict[tuple[int, int], Fate] = {(i, s): ("fail", 10) for i in range(4) for s in SEEDS}
    assert added(run(levels(*range(7)), fates=everybody))["c0004"][0] == "c0000"


@pytest.mark.parametrize("slots", [1, 4])
def test_a_table_has_one_winner_though_its_first_candidate_is_better(slots: int) -> None:
    tables = [{"after": 0, "changes": [{"rate": 0.1}, {"rate": 0.2}]}, {"after": 0, "changes": [{"rate": 0.3}]}]
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0, 6.0), slots, follow_ups=tables)
    assert [parent for parent, _ in added(sim).values()] == ["c0002", "c0002", "c0004"]


def test_one_that_is_on_its_way_to_a_later_gate_may_win_an_earlier_one() -> None:
    tables = [{"after": 0, "enters": 1, "changes": [{"rate": 0.1}]}, {"after": 0, "changes": [{"rate": 0.2}]}]
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0), 3, follow_ups=tables)
    assert added(sim)["c0005"] == ("c0004", "c0004 with rate = 0.2")


def test_the_winner_of_a_later_gate_is_of_those_that_came_there() -> None:
    def metrics(index: int, _seed: int, step: int) -> dict[str, float]:
        # c0001 leads at the first gate, c0002 at the second.
        early, late = [(4, 4), (1, 3), (2, 2), (3, 1), (6, 6), (0, 0)][index]
        return {"val_loss": float(early if step <= 20 else late) + 1 / step}

    tables = [{"after": 1, "enters": 1, "changes": [{"rate": 0.1}, {"rate": 0.2}]}]
    sim = run(metrics, 2, follow_ups=tables)
    assert passed(sim, 0) == {"c0001": "top", "c0002": "top", "c0004": "follow_up", "c0005": "follow_up"}
    # The control has 4, those that passed 3 and 2: c0001 keeps its early 1.05.
    assert {parent for parent, _ in added(sim).values()} == {"c0001"}
    assert passed(sim, 1) == {"c0005": "top", "c0001": "top"}


# --- who waits for whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("order", range(3))
def test_gates_with_a_top_wait_for_those_that_compete_there_and_for_no_others(slots: int, order: int) -> None:
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), slots, order=order)
    first = [p for p in sim.promoted() if p.gate == 0 and p.reason == "top"]
    second = [p for p in sim.promoted() if p.gate == 1 and p.reason == "top"]
    assert all(p.num_scored == 4 for p in first + second)
    assert [(p.candidate, p.rank) for p in first] == [("c0004", 0), ("c0002", 1)]
    if slots == 8:
        # Nobody waits until the follow-ups that do not compete there have come to the gate.
        where = {p.candidate: i for i, p in enumerate(sim.promoted()) if p.gate == 0}
        assert where["c0004"] < min(where["c0005"], where["c0006"])


def test_those_brought_up_take_nobodys_place() -> None:
    changes: dict[str, Any] = {"num_candidates": 6, "stages": staged(eta=3.0, at_most=2)}
    values = (5.5, 1, 2, 3, 4, 5, 6, *[0.5] * 3)
    plain = run(levels(*values), follow_ups=[], **changes)
    tables = [{"after": 0, "enters": 2, "changes": [{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}]}]
    sim = run(levels(*values), follow_ups=tables, **changes)

    def by_merit(of: Simulation) -> list[Promoted]:
        return [p for p in of.promoted() if p.reason not in ("follow_up", "control")]

    assert [p for p in by_merit(sim) if p.gate == 0] == [p for p in by_merit(plain) if p.gate == 0]
    assert {p.candidate: p.gate for p in sim.promoted() if p.reason == "follow_up"} == {
        "c0007": 1,
        "c0008": 1,
        "c0009": 1,
    }
    assert [c.stage for c in sim.history.follow_ups] == [2, 2, 2]
    assert [len(gate.order) for gate in sim.history.gates] == [6, 2, 1 + 3]


def test_a_follow_up_that_is_lost_later_opens_no_gate_that_it_did_not_compete_at() -> None:
    lost: dict[tuple[int, int], Fate] = {(i, s): ("diverge", 50) for i in (4, 5) for s in SEEDS}
    stages = [{**STAGES[0], "top": 2, "at_least": 2}, {**STAGES[1], "top": 1}, STAGES[2]]
    tables = [{"after": 0, "enters": 1, "changes": [{"rate": 0.1}, {"rate": 0.2}]}]
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 0.5), fates=lost, stages=stages, follow_ups=tables)
    assert [name for name, why in passed(sim, 0).items() if why != "follow_up"] == ["c0002", "c0001"]
    assert passed(sim, 1) == {"c0002": "top"}


@pytest.mark.parametrize("enters", [0, 1])
def test_a_follow_up_that_is_unwell_goes_no_further(enters: int) -> None:
    tables = [{"after": 0, "enters": enters, "changes": [{"rate": 0.1}]}, {"after": 0, "changes": [{"rate": 0.2}]}]
    sim = run(
        levels(4.0, 3.0, 2.0, 5.0, 1.0, 0.5, health=lambda index: float(index != 4)),
        follow_ups=tables,
        rules={"health": [{"metric": "health", "at_least": 0.5}]},
    )
    assert "c0004" not in passed(sim, 0)
    assert sim.history.candidates["c0004"].barred
    assert added(sim)["c0005"][0] == "c0002"


@pytest.mark.parametrize("hollow", [frozenset({5}), frozenset({5, 6}), frozenset({4, 5, 6})])
def test_what_is_required_before_the_last_stage_is_required_of_follow_ups(hollow: frozenset[int]) -> None:
    searched = plan(**{**LEAN, "stages": [TOPS[0], {"until_step": 60, "num_seeds": 3}]})
    searched = searched.model_copy(update={"require": ("solid",), "diagnose": ("solid",)})
    sim = Simulation(searched, levels(4, 3, 2, 5, 1, 6, 0), diagnosis=diagnosed(hollow)).run()
    check_accounts(sim)
    assert {c.index for c in sim.history.follow_ups if c.stage == 1} == {4, 5, 6} - hollow
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision


@pytest.mark.parametrize("slots", [1, 4])
def test_audits_come_after_the_last_follow_up(slots: int) -> None:
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), slots, audit=2)
    audits = [i for i, e in enumerate(sim.events) if isinstance(e, Promoted) and e.reason == "audit"]
    assert len({e.candidate for e in sim.promoted() if e.reason == "audit"}) == 2
    assert max(i for i, e in enumerate(sim.events) if isinstance(e, CandidateAdded)) < min(audits)


# --- those that are not made -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
@pytest.mark.parametrize("slots", [1, 4])
def test_one_that_cannot_be_made_is_passed_over(refused: set[int], slots: int) -> None:
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), slots, refused=refused)
    skipped = [e for e in sim.events if isinstance(e, FollowUpSkipped)]
    assert len(skipped) == len(refused)
    assert sim.history.skipped == skipped
    assert len(sim.history.follow_ups) == 3 - len(refused)
    assert sum(why == "top" for why in passed(sim, 0).values()) == 2


@pytest.mark.parametrize("max_steps", [1, 100, 240, 250, 300, 400, 10**6])
@pytest.mark.parametrize("slots", [1, 4])
def test_a_spent_budget_starts_no_follow_up_and_no_gate_waits_for_one(max_steps: int, slots: int) -> None:
    sim = run(levels(4.0, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), slots, budget={"max_steps": max_steps})
    for decided in sim.decisions:
        if isinstance(decided.decision, AskFollowUp):
            assert fold(sim.plan, sim.events[: decided.num_events]).steps_spent < max_steps
    assert len(sim.history.follow_ups) == (3 if max_steps == 10**6 else len(sim.history.followed))
    if max_steps == 1:
        assert not sim.history.follow_ups
    if sim.history.num_candidates():
        assert any(c.stage == 2 for c in sim.others())


def test_around_the_control_alone() -> None:
    tables = [{"after": 0, "changes": [{"rate": 0.1}, {"rate": 0.2}]}, {"after": 0, "changes": [{"rate": 0.3}]}]
    sim = run(levels(3.0, 2.0, 4.0, 1.0), num_candidates=0, follow_ups=tables)
    assert [parent for parent, _ in added(sim).values()] == ["c0000", "c0000", "c0001"]
    assert passed(sim, 0).keys() == {"c0001", "c0003"}


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 4])
def test_references_run_to_the_end_and_change_nothing_for_others(slots: int) -> None:
    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        if index in (1, 2):  # better and worse than everybody, and rising: patience stops no reference
            return {"val_loss": (0.0, 99.0)[index - 1] + step / 100, "health": 0.0}
        return curve(index - 2 if index else 0, seed, step)

    rules = {"patience_steps": 30, "health": [{"metric": "health", "at_least": 0.5, "stops": True}]}
    changes: dict[str, Any] = {"stages": staged(), "num_candidates": 8, "follow_ups": [], "rules": rules}
    sim = run(metrics, slots, references=["good", "diverging"], **changes)
    assert [(c.id, c.stage) for c in sim.history.references] == [("c0001", 2), ("c0002", 2)]
    assert {m.status for c in sim.history.references for m in c.members.values()} == {"completed"}
    reasons = [(p.candidate, p.gate, p.reason) for p in sim.promoted() if p.reason == "reference"]
    assert sorted(reasons) == [(name, gate, "reference") for name in ("c0001", "c0002") for gate in (0, 1)]
    assert len(sim.history.gates[0].order) == 8
    assert sim.history.gates[2].score(1) == pytest.approx(0.1)
    if slots == 1:
        plain = run(curve, slots, **changes)
        others = [(c.index, c.stage) for c in plain.others()]
        assert [(c.index - 2, c.stage) for c in sim.others()] == others


def test_a_reference_wins_no_gate_and_a_lost_one_stops_nothing() -> None:
    sim = run(levels(4.0, 0.1, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), 2, references=["good"])
    assert added(sim)["c0005"][0] == "c0003"
    fates: dict[tuple[int, int], Fate] = {(1, seed): ("diverge", 10) for seed in SEEDS}
    sim = run(levels(4.0, 0.1, 3.0, 2.0, 5.0, 1.0, 6.0, 0.5), 2, fates, references=["good"])
    assert {p.score for p in sim.promoted() if p.candidate == "c0001"} == {6.0}
    everybody: dict[tuple[int, int], Fate] = {(i, s): ("fail", 10) for i in range(9) for s in SEEDS}
    sim = run(levels(*range(9)), 2, everybody, references=["good"])
    assert {p.score for p in sim.promoted()} == {None}


# --- everything together ---------------------------------------------------------------------------------------------

GATES = st.fixed_dictionaries(
    {},
    optional={
        "top": st.integers(1, 4),
        "at_least": st.integers(1, 3),
        "at_most": st.integers(3, 5),
        "when_idle": st.booleans(),
    },
)
TABLES = st.lists(
    st.fixed_dictionaries(
        {
            "after": st.integers(0, 1),
            "enters": st.integers(0, 2),
            "changes": st.lists(st.just({"rate": 0.5}), min_size=1, max_size=2),
        }
    ),
    max_size=3,
).map(lambda tables: sorted(tables, key=lambda table: table["after"]))
GAPS = st.one_of(st.none(), st.fixed_dictionaries({"first": st.floats(0, 1), "widening": st.floats(0, 0.2)}))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Searches with everything that may be beside the quota."""
    tables, gates = draw(TABLES), draw(st.tuples(GATES, GATES))
    for table, (k, gate) in itertools.product(tables, enumerate(gates)):
        if table["enters"] <= k < table["after"]:
            gate.pop("top", None)
    gap, bounds = draw(GAPS), draw(health_bounds(0, 20, 40))
    return plan(
        num_candidates=draw(st.integers(1, 5)),
        references=draw(st.sampled_from([[], ["good"], ["good", "diverging"]])),
        stages=[{**STAGES[0], **gates[0]}, {**STAGES[1], **gates[1]}, STAGES[2]],
        follow_ups=tables,
        rules={
            "health": bounds,
            **({} if gap is None else {"gap": gap}),
            "patience_steps": draw(st.sampled_from([30, 90])),
        },
        scoring=draw(st.sampled_from([{"band": 0.0, "extra_seeds": 0.0}, {"band": 0.3, "extra_seeds": 0.4}])),
        audit=draw(st.integers(0, 2)),
        budget=draw(st.sampled_from([{}, {"max_steps": 200}, {"max_steps": 600}])),
    )


@settings(max_examples=120)
@given(
    searched=plans(),
    refused=st.sets(st.integers(0, 5)),
    share=st.sampled_from([0.0, 0.3, 0.9]),
    absent=st.booleans(),
    slots=st.integers(1, 6),
    order=st.integers(0, 99),
)
def test_the_laws_hold_with_follow_ups_references_gaps_and_health(
    searched: Plan, refused: set[int], share: float, absent: bool, slots: int, order: int
) -> None:
    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        reported = curve(index, seed, step)
        if absent and index % 3 == 1:
            del reported["pulse"]
        return reported

    fates = fates_by_seed(order, share)
    source = ScriptedSource(searched, refused=refused)
    sim = Simulation(searched, metrics, fates=fates, slots=slots, order=order, source=source).run()
    check_accounts(sim)
    check_no_slot_waited(sim)
    # Every prefix decides the same: a few of the many are enough, for they change from example to example.
    for decided in sim.decisions[order % 7 :: 7]:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
    assert all(math.isfinite(p.score) for p in sim.promoted() if p.reason not in ("control", "reference"))
