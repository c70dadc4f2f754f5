"""A plan that grows in the middle of a run, or after its end: recorded, replayed, and nothing else may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_rh
from tests.worlds.plans import fold, plan
from tests.worlds.records import SMALL, curves, decided, events, finish, make, of, open_search
from tests.worlds.scripted import Simulation, curve, fates_by_seed, next_job
from tune_rh.decide.scheduler import Finish
from tune_rh.errors import PlanError
from tune_rh.record.events import Event, MemberId, PlanChanged, Promoted
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.extend import extend
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs

FURTHER = "stages.3={until_step=80, num_seeds=2}"


def grown(paths: RunPaths, *overrides: str) -> History:
    """Go on with a run whose plan is extended."""
    run = tune_rh.resume(paths.root, overrides=overrides, data_dir=paths.root.parent, runner="local")
    assert run.root == paths.root
    return runs.replay(paths)[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_change_of_nothing_changes_nothing_anywhere_in_a_run(seed: int) -> None:
    sim = Simulation(plan(num_candidates=8), curve, fates=fates_by_seed(seed, 0.2), slots=2, order=seed).run()
    for cut in range(len(sim.events)):
        before, after = (fold(sim.plan, sim.events[:cut]) for _ in range(2))
        before.hand_back_all()
        after.apply(PlanChanged({}))
        assert after.pending == before.pending
        assert after.incomplete == before.incomplete
        assert next_job(sim.plan, after) == next_job(sim.plan, before)


def test_more_candidates_after_the_end(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    before = events(paths)
    history = grown(paths, "num_candidates=7")
    assert history.num_candidates() == 7
    assert history.plan.num_candidates == 7
    after = events(paths)
    assert after[: len(before)] == before
    assert after[len(before)] == PlanChanged({"num_candidates": 7})
    assert isinstance(next_job(history.plan, history), Finish)
    assert grown(paths, "num_candidates=7").num_candidates() == 7
    assert len(of(paths, PlanChanged)) == 1


def test_a_further_stage_goes_on_from_where_the_best_stand(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    read = {event.member for event in of(paths, ReadOfTest)}
    history = grown(paths, FURTHER)
    best = [c for c in history.candidates.values() if c.stage == 3]
    assert len(best) >= 2  # the control and a candidate
    assert {c.id for c in best} == {e.candidate for e in of(paths, Promoted) if e.gate == 2}
    reads = of(paths, ReadOfTest)
    for candidate in best:
        for member in candidate.members.values():
            assert (member.step, member.status) == (80, "completed")
            assert member.tested == [e for e in reads if e.member == member.id][-1]
    stayed = read - {m.id for c in best for m in c.members.values()}
    assert all([e.member for e in reads].count(member) == 1 for member in stayed)
    # What was trained in two parts is what would have been trained at once.
    at_once = make(tmp_path / "at-once", **{**SMALL, "stages": [*SMALL["stages"], {"until_step": 80, "num_seeds": 2}]})
    finish(at_once)
    one, two = curves_only(paths), curves_only(at_once)
    whole = [member for member in one if member in two and len(one[member]) == len(two[member]) == 8]
    assert MemberId("c0000", 7) in whole
    assert all(one[member] == two[member] for member in whole)


def test_a_further_stage_may_bring_seeds_alone(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **{**SMALL, "seeds": [7, 42, 1337]})
    before = finish(paths)
    steps = before.steps_spent
    history = grown(paths, "stages.3={until_step=60, num_seeds=3}")
    best = [c for c in history.candidates.values() if c.stage == 3]
    assert len(best) >= 2
    assert history.steps_spent == steps + 60 * len(best)
    for candidate in best:
        assert {seed: m.status for seed, m in candidate.members.items()} == dict.fromkeys([7, 42, 1337], "completed")
    read = [event.member for event in of(paths, ReadOfTest)]
    assert len(set(read)) == len(read)


def curves_only(paths: RunPaths) -> dict[MemberId, list[Event]]:
    return {m: [e for e in events if not isinstance(e, ReadOfTest)] for m, events in curves(paths).items()}


def test_an_extended_run_is_resumed_like_any_other(tmp_path: Path) -> None:
    quiet, cut = make(tmp_path / "quiet", **SMALL), make(tmp_path / "cut", **SMALL)
    for paths in (quiet, cut):
        finish(paths)
    history = grown(quiet, "num_candidates=6", FURTHER)

    class Enough(Exception):
        pass

    def stop(event: Event, after: History) -> None:
        if after.steps_spent > history.steps_spent - 30:
            raise Enough

    with pytest.raises(Enough):
        tune_rh.resume(
            cut.root, overrides=["num_candidates=6", FURTHER], data_dir=tmp_path, runner="local", on_event=stop
        )
    finish(cut)
    assert decided(cut) == decided(quiet)


def test_every_prefix_of_an_extended_run_can_be_folded(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    grown(paths, "num_candidates=6", FURTHER, "budget.max_steps=50000", "resources.slots=3")
    whole = events(paths)
    for cut in range(len(whole)):
        history = fold(plan(**SMALL), whole[:cut])
        next_job(history.plan, history)
    assert fold(plan(**SMALL), whole).plan.resources.slots == 3


def of_small(**changes: Any) -> History:
    return History(plan(**{**SMALL, **changes}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_candidates=3", r"num_candidates: was 4, is 3: there may be more candidates, not fewer"),
        ("seeds=[7, 43]", r"seeds\.1: was 42, is 43: the run so far"),
        ("stages.0.until_step=10", r"stages\.0\.until_step: was 20, is 10: stages that have begun"),
        ("stages.1.top=1", r"stages\.1\.top: was not set, is 1: stages that have begun"),
        ("eta=2.0", r"eta: was 3\.0, is 2\.0: the run so far.*num_candidates, budget, stages"),
        ("rules.patience_steps=20", r"rules\.patience_steps: was not set, is 20"),
        ("fixed.noise=0.5", r"fixed\.noise: was 0\.02, is 0\.5"),
        ("nosuch=1", r"nosuch.* = 1: there is no such key"),
        ("num_candidates='many'", r"num_candidates = 'many'"),
    ],
)
def test_what_may_not_change_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        extend(of_small(), [override])


def test_all_that_may_not_change_is_said_at_once() -> None:
    with pytest.raises(PlanError, match=r"(?s)seeds\.0: .*eta: "):
        extend(of_small(), ["eta=2.0", "seeds=[8, 42]"])


def test_a_race_takes_no_further_stage() -> None:
    with pytest.raises(PlanError, match=r"What may change: resources, diagnose, watch$"):
        extend(History(tune_rh.load_plan("e55-race")), ["stages.1.top=1", "stages.2={until_step=100000, num_seeds=4}"])


def test_a_gate_that_has_taken_its_top_lets_no_other_through(tmp_path: Path) -> None:
    stages = [{**SMALL["stages"][0], "top": 2}, *SMALL["stages"][1:]]
    history = finish(make(tmp_path / "run", **{**SMALL, "stages": stages}))
    with pytest.raises(PlanError, match=r"was 4, is 6: gate 1 has taken its top 2 already"):
        extend(history, ["num_candidates=6"])


def test_after_an_audit_has_begun_nothing_more_can_pass(tmp_path: Path) -> None:
    history = finish(make(tmp_path / "run", **SMALL, audit=1))
    assert history.num_audited == 1
    with pytest.raises(PlanError, match="the audit has begun"):
        extend(history, ["num_candidates=6"])


def test_nothing_is_recorded_where_nothing_differs(tmp_path: Path) -> None:
    _, session = open_search(make(tmp_path / "run", **SMALL))
    session.close("interrupted")
    assert extend(session.history, ["num_candidates=4"]) is None
