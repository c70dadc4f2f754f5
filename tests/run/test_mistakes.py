"""A mistake in the code of all members costs one try: the session stops, and goes on once it is mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_rh
from tests.record.test_snapshot import check
from tests.worlds.family import ScriptedTask
from tests.worlds.plans import fold, plan
from tests.worlds.records import curves, events, of
from tune_rh import api
from tune_rh.errors import TaskFailed
from tune_rh.record.events import Halted, JobEnded, JobRetried, JobStarted, Promoted, SessionEnded
from tune_rh.record.journal import RunPaths

pytestmark = pytest.mark.usefixtures("no_drawing")
STAGES = [{"until_step": 20, "num_seeds": 1}, {"until_step": 40, "num_seeds": 2}]


class World:
    """Searches of one plan, whose members raise what they are told to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch, self._step = folder, monkeypatch, ScriptedTask.step
        self.options: dict[str, Any] = {"runs_dir": folder, "runner": "local"}

    def break_those(self, spare_control: bool, *, by_floor: bool = False, at: int = 5) -> None:
        """Step ``at`` fails from here on, except in the control where that is spared."""
        step = self._step

        def fails(task: ScriptedTask) -> dict[str, float]:
            found = step(task)
            if task._step == at and not (spare_control and task.config.floor == 1.0):
                raise KeyError(f"momentum {task.config.floor}" if by_floor else "momentum")
            return found

        self._patch.setattr(ScriptedTask, "step", fails)

    def mend(self) -> None:
        self._patch.setattr(ScriptedTask, "step", self._step)

    def search(self, name: str, **changes: Any) -> api.Run:
        told = {"num_candidates": 5, "stages": STAGES, "seeds": [7, 42], **changes}
        return tune_rh.search(plan(name=name, **told), data_dir=self.folder, trial=False, **self.options)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_what_the_controls_first_job_raises_stops_the_run_at_once(world: World) -> None:
    quiet = world.search("quiet")
    world.break_those(spare_control=False)
    with pytest.raises(TaskFailed) as caught:
        world.search("broken")
    said = str(caught.value)
    assert said.startswith(f"run 'broken' has stopped at KeyError: 'momentum' ({__file__}:")
    assert f'  File "{__file__}", line ' in said
    assert ", in fails\n    raise KeyError(" in said
    assert "c0000-s7" in said
    assert said.endswith(f"tune-rh resume broken --runs-dir {world.folder} --accept code")
    paths = RunPaths(world.folder / "broken")
    assert len(of(paths, JobStarted)) == 1
    assert of(paths, JobRetried) == []
    assert [event.outcome for event in of(paths, JobEnded)] == ["interrupted"]
    assert of(paths, SessionEnded)[-1].reason == "halted"
    with pytest.raises(TaskFailed):
        tune_rh.resume("broken", **world.options)
    world.mend()
    mended = tune_rh.resume("broken", **world.options)
    assert mended.best == quiet.best
    assert curves(paths) == curves(RunPaths(quiet.root))


@pytest.mark.parametrize(("max_failures", "retried"), [(0, 0), (2, 1)])
def test_what_it_raises_after_an_evaluation_stops_the_run_when_it_is_raised_again(
    world: World, max_failures: int, retried: int
) -> None:
    quiet = world.search("quiet")
    world.break_those(spare_control=False, at=13)
    with pytest.raises(TaskFailed):
        world.search("broken", resources={"max_failures": max_failures})
    paths = RunPaths(world.folder / "broken")
    assert len(of(paths, JobRetried)) == retried
    world.mend()
    assert tune_rh.resume("broken", **world.options).best == quiet.best
    assert curves(paths) == curves(RunPaths(quiet.root))


def test_what_the_control_raises_in_a_later_stage_is_a_failure_of_one_member(world: World) -> None:
    world.break_those(spare_control=False, at=33)
    run = world.search("late", resources={"max_failures": 0})
    assert run.run.ended == "finished"
    assert run.run.members["c0000-s7"].status == "failed"


@pytest.mark.parametrize(("max_failures", "at"), [(0, 5), (2, 5), (2, 13)])
def test_what_three_members_raise_alike_stops_the_run_and_they_begin_again(
    world: World, max_failures: int, at: int
) -> None:
    quiet = world.search("quiet")
    world.break_those(spare_control=True, at=at)
    with pytest.raises(TaskFailed, match=r"It was raised in c0001-s7, c0002-s7, c0003-s7, and would be in every"):
        world.search("broken", resources={"max_failures": max_failures})
    paths = RunPaths(world.folder / "broken")
    assert [event.outcome for event in of(paths, JobEnded)].count("failed") == 2
    assert len(of(paths, JobRetried)) == 2 * max_failures
    stopped = tune_rh.load("broken", world.folder)
    statuses = {member.status for member in stopped.run.members.values() if member.candidate != "c0000"}
    assert statuses == {"waiting" if at == 5 else "parked"}
    assert "failed" not in {decision.kind for decision in stopped.run.decisions}
    world.mend()
    mended = tune_rh.resume("broken", **world.options)
    assert mended.best == quiet.best
    assert curves(paths) == curves(RunPaths(quiet.root))
    assert [event.candidate for event in of(paths, Promoted)] == [
        event.candidate for event in of(RunPaths(quiet.root), Promoted)
    ]


def test_who_accepts_failures_lets_members_fail_of_it(world: World) -> None:
    world.break_those(spare_control=True)
    with pytest.raises(TaskFailed):
        world.search("broken")
    lines: list[str] = []
    run = tune_rh.resume("broken", accept=["failures"], say=lines.append, **world.options)
    assert "accepted: T08 task: the last session stopped at what every member would raise" in lines
    assert run.run.ended == "finished"
    assert [member.status for member in run.run.members.values()].count("failed") == 5


def test_any_prefix_of_such_a_journal_gives_the_same_history_and_so_does_a_snapshot(world: World) -> None:
    world.break_those(spare_control=True)
    with pytest.raises(TaskFailed):
        world.search("broken")
    world.mend()
    tune_rh.resume("broken", **world.options)
    told = events(RunPaths(world.folder / "broken"))
    begun = fold(plan(name="broken", num_candidates=5, stages=STAGES, seeds=[7, 42]), []).plan
    (halted,) = (i for i, event in enumerate(told) if isinstance(event, Halted))
    for at in (halted - 1, halted, halted + 1, halted + 2, len(told)):
        check(begun, told, at)


def test_what_each_raises_for_its_own_config_stops_nothing(world: World) -> None:
    world.break_those(spare_control=True, by_floor=True)
    run = world.search("unlike", resources={"max_failures": 0})
    assert run.run.ended == "finished"
    assert [member.status for member in run.run.members.values()].count("failed") == 5


def test_once_a_candidate_was_evaluated_what_others_raise_is_their_own(world: World) -> None:
    world.break_those(spare_control=True)
    spared = {"presets": ["spared"], "configs": {"spared": {"preset": "good", "fields": {"floor": 1.0}}}}
    run = world.search("late", resources={"max_failures": 0}, **spared)
    assert run.run.ended == "finished"
    assert [member.status for member in run.run.members.values()].count("failed") == 4
