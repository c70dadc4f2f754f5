"""The run's study on disk mirrors the history: states, values at their steps, and made whole again when it is lost."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.decide.test_samplers import added, draw
from tests.worlds.family import SPACE
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import ScriptedSource, Simulation, curve
from tune_rh.plan.kinds import Sampler
from tune_rh.record.events import CandidateAdded
from tune_rh.record.history import History
from tune_rh.watch.study import StudyMirror, _is_damaged

LOST: dict[tuple[int, int], Any] = {(2, seed): ("diverge", 10) for seed in (7, 42, 1337)}


def simulated(mode: str = "min", **changes: Any) -> Simulation:
    """Four candidates: the first a preset outside of the space, the second loses all its seeds."""
    searched = plan(num_candidates=4, **changes).model_copy(update={"mode": mode})

    class Drawn(ScriptedSource):
        def candidate(self, history: History) -> CandidateAdded:
            number = len(history.candidates)
            drawn = draw(Sampler(name="random"), SPACE, fold(searched, []), attempt=number) if number > 1 else None
            return added(number, drawn, {0: "", 1: "diverging"}.get(number, ""))

    return Simulation(searched, curve, fates=LOST, source=Drawn(searched)).run()


def facts(path: Path) -> list[dict[str, Any]]:
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{path}")

    def of(trial: FrozenTrial) -> dict[str, Any]:
        return {
            "number": trial.number,
            "state": trial.state,
            "value": trial.value,
            "params": trial.params,
            "distributions": trial.distributions,
            "intermediate": trial.intermediate_values,
            "candidate": trial.user_attrs["candidate"],
            "origin": trial.user_attrs["origin"],
        }

    return [of(trial) for trial in study.get_trials()]


def scores(history: History, candidate: str) -> dict[int, float]:
    """Step -> score over seeds at the gates that a candidate has reached, in the objective's own sign."""
    index = history.candidates[candidate].index
    gates = zip(history.plan.stages, history.gates, strict=True)
    found = {
        s.until_step: g.control_score() if index == 0 else g.score(index) for s, g in gates if not index or g.has(index)
    }
    return {step: history.shown(score) for step, score in found.items() if score is not None and math.isfinite(score)}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_states_and_values_follow_the_history(tmp_path: Path, mode: str) -> None:
    sim = simulated(mode)
    history = sim.history
    mirror = StudyMirror(tmp_path / "study.db", "name", history)
    mirror.sync(finished=True)
    rows = facts(tmp_path / "study.db")
    assert [row["candidate"] for row in rows] == list(history.candidates)
    assert [row["origin"] for row in rows] == ["control", "diverging", "sampler", "sampler", "sampler"]
    for row in rows:
        candidate = history.candidates[row["candidate"]]
        assert row["params"] == candidate.added.params
        if all(m.lost for m in candidate.members.values()):
            assert (row["state"], row["value"]) == (TrialState.FAIL, None)
            continue
        assert row["intermediate"] == scores(history, candidate.id)
        finished = candidate.stage == 2
        assert row["state"] == (TrialState.COMPLETE if finished else TrialState.PRUNED)
        # Optuna gives a pruned trial its last intermediate value.
        assert row["value"] == row["intermediate"][120 if finished else max(row["intermediate"])]
    states = [row["state"] for row in rows]
    assert {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL} == set(states)
    study = optuna.load_study(study_name="name", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert study.direction.name == ("MINIMIZE" if mode == "min" else "MAXIMIZE")


def test_nobody_is_complete_before_the_last_stage(tmp_path: Path) -> None:
    sim = simulated()
    path = tmp_path / "study.db"
    history = History(sim.plan)
    mirror = StudyMirror(path, "name", history)
    for number, event in enumerate(sim.events):
        history.apply(event)
        if number % 25:
            continue
        mirror.sync()
        for row in facts(path):
            candidate = history.candidates[row["candidate"]]
            at_the_end = candidate.stage == 2 and history.is_complete(candidate)
            assert (row["state"] == TrialState.COMPLETE) == at_the_end
            assert row["state"] != TrialState.PRUNED
            if row["state"] != TrialState.FAIL:
                assert row["intermediate"].items() <= scores(history, candidate.id).items()


@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_a_lost_study_is_rebuilt_equal(tmp_path: Path, cut: int) -> None:
    sim = simulated()
    history = fold(sim.plan, sim.events[:cut])
    kept, path = tmp_path / "kept.db", tmp_path / "study.db"
    # One that was kept up to date candidate by candidate, and one that is made from the history at once.
    step_by_step = History(sim.plan)
    mirror = StudyMirror(kept, "name", step_by_step)
    for event in sim.events[:cut]:
        step_by_step.apply(event)
        if hasattr(event, "candidate"):
            mirror.update(step_by_step.candidates[event.candidate])
    mirror.sync(finished=cut >= len(sim.events))
    StudyMirror(path, "name", history).sync(finished=cut >= len(sim.events))
    first = facts(path)
    assert len(first) == len(history.candidates)
    path.unlink()
    StudyMirror(path, "name", history).sync(finished=cut >= len(sim.events))
    assert facts(path) == first == facts(kept)


def test_opening_again_changes_nothing_that_is_settled(tmp_path: Path) -> None:
    sim = simulated()
    path = tmp_path / "study.db"
    StudyMirror(path, "name", fold(sim.plan, sim.events[:60]))
    StudyMirror(path, "name", sim.history).sync(finished=True)
    first = facts(path)
    StudyMirror(path, "name", sim.history).sync(finished=True)
    assert facts(path) == first
    direct = tmp_path / "direct.db"
    StudyMirror(direct, "name", sim.history).sync(finished=True)
    assert facts(direct) == first


def test_a_trial_that_was_cut_off_while_it_was_added_is_passed_over(tmp_path: Path) -> None:
    """A driver may die between asking Optuna for a trial and naming its candidate."""
    sim = simulated()
    path = tmp_path / "study.db"
    study = optuna.create_study(study_name="name", storage=f"sqlite:///{path}", direction="minimize")
    study.ask()
    StudyMirror(path, "name", sim.history).sync(finished=True)
    trials = optuna.load_study(study_name="name", storage=f"sqlite:///{path}").get_trials()
    named = [t.user_attrs["candidate"] for t in trials if "candidate" in t.user_attrs]
    assert named == list(sim.history.candidates)


def test_a_damaged_study_is_set_aside_and_made_again(tmp_path: Path) -> None:
    sim = simulated()
    whole, path = tmp_path / "whole.db", tmp_path / "study.db"
    StudyMirror(whole, "name", sim.history).sync(finished=True)
    path.write_bytes(b"no database" * 100)
    with pytest.warns(UserWarning, match=r"study\.db: is damaged"):
        StudyMirror(path, "name", sim.history).sync(finished=True)
    assert facts(path) == facts(whole)
    assert (tmp_path / "damaged-study.db").read_bytes() == b"no database" * 100


def test_a_study_that_somebody_holds_is_not_damaged() -> None:
    assert _is_damaged(RuntimeError()) is False
    held = sqlite3.OperationalError("database is locked")
    assert _is_damaged(held) is False
    outer = RuntimeError("as a library wraps it")
    outer.__cause__ = sqlite3.DatabaseError("file is not a database")
    assert _is_damaged(outer) is True
