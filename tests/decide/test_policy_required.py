"""What a plan requires before the last stage: a candidate is checked where it waits, and passes or is out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from tests.decide.test_policy_gates import levels, passed
from tests.decide.test_policy_seeds import WIDE, close
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import SEEDS, Diagnosis, Simulation, check_accounts, curve, fates_by_seed, next_job, staged
from tune_rh.decide.scheduler import RunMember
from tune_rh.record.events import JobEnded, JobStarted, Promoted
from tune_rh.record.members import Candidate


def diagnosed(hollow: Collection[int], crashes: Collection[int] = ()) -> Diagnosis:
    """Candidates of ``hollow`` indices fail; the diagnosis of some crashes."""

    def diagnosis(candidate: Candidate) -> dict[str, str] | None:
        verdict = "fail" if candidate.index in hollow else "pass"
        return None if candidate.index in crashes else {"solid": verdict}

    return diagnosis


def search(slots: int = 1, hollow: tuple[int, ...] = (), crashes: tuple[int, ...] = (), **changes: Any) -> Simulation:
    metrics = changes.pop("metrics", levels(9, 1, 2, 3, 4, 5, 6))
    searched = plan(**{"num_candidates": 6, "stages": staged(top=4)[:2], **changes})
    searched = searched.model_copy(update={"require": ("solid",), "diagnose": ("solid",)})
    return Simulation(searched, metrics, slots=slots, diagnosis=diagnosed(hollow, crashes)).run()


@pytest.mark.parametrize("slots", [1, 4])
def test_who_fails_what_is_required_does_not_pass_the_last_gate(slots: int) -> None:
    sim = search(slots, hollow=(1, 3))
    assert set(passed(sim)) == {"c0002", "c0004", "c0005", "c0006"}
    assert sum(map(sim.history.gates[0].is_out, range(20))) == 2
    check_accounts(sim)


def test_the_best_seed_is_checked_once_before_the_gate_and_every_seed_after_the_last_stage() -> None:
    sim = search()
    checks = [e.member for e in sim.events if isinstance(e, JobStarted) and e.purpose == "diagnose"]
    gate, end = checks[:6], checks[6:]
    assert [m.candidate for m in sorted(gate)] == [f"c000{i}" for i in range(1, 7)]
    # The control is never held up, and looked at like all others at the end.
    assert len(end) == len(set(end)) == 5 * 2
    assert all(m.diagnosed for c in sim.history.candidates.values() if c.stage == 1 for m in c.members.values())


def test_a_check_that_crashes_costs_no_candidate_anything() -> None:
    sim = search(crashes=(1, 2))
    assert {"c0001", "c0002"} <= set(passed(sim))
    assert not any(m.lost for c in sim.history.candidates.values() for m in c.members.values())


def test_where_all_fail_the_control_alone_goes_to_the_end() -> None:
    sim = search(2, hollow=(1, 2, 3, 4, 5, 6))
    assert passed(sim) == {}
    check_accounts(sim)


@pytest.mark.parametrize("gates", ["promote", "stop"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_prefix_gives_the_recorded_decisions_again_with_seeds_and_checks(gates: str, seed: int) -> None:
    sim = search(
        3, hollow=(2, 5), seeds=WIDE, num_candidates=14, metrics=close, gates=gates, eta=2.0,
        stages=[{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 3}],
        scoring={"band": 0.3, "extra_seeds": 0.3},
    )  # fmt: skip
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
    assert not {"c0002", "c0005"} & {e.candidate for e in sim.events if isinstance(e, Promoted)}


def test_a_check_that_was_interrupted_is_run_again() -> None:
    sim = search(hollow=(1,))
    at = next(i for i, e in enumerate(sim.events) if isinstance(e, JobStarted) and e.purpose == "diagnose")
    event = sim.events[at]
    assert isinstance(event, JobStarted)
    history = fold(sim.plan, [*sim.events[: at + 1], JobEnded(event.member, "interrupted", "", 0.0)])
    decision = next_job(sim.plan, history)
    assert isinstance(decision, RunMember)
    assert (decision.member, decision.purpose) == (event.member, "diagnose")


def test_lost_seeds_and_checks_together_are_accounted_for() -> None:
    for seed in range(4):
        searched = plan(num_candidates=9).model_copy(update={"require": ("solid",), "diagnose": ("solid",)})
        options = {"fates": fates_by_seed(seed, 0.3), "slots": 3, "order": seed, "diagnosis": diagnosed({2, 4, 6})}
        sim = Simulation(searched, curve, **options).run()
        check_accounts(sim)
        assert len(SEEDS) == 3
