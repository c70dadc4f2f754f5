"""The face in Python: the same runs as on the command line, from any thread, without a word or an exit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import tune_rh
from tests.worlds import records as on_disk
from tests.worlds.plans import plan
from trainables.given import attributes
from tune_rh import api
from tune_rh.errors import PlanError, RunExists, RunNotFound
from tune_rh.record.events import Event, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths

pytestmark = pytest.mark.usefixtures("no_drawing")


def search(folder: Path, **options: Any) -> api.Run:
    return tune_rh.search(plan(num_candidates=3), runs_dir=folder / "runs", data_dir=folder, runner="local", **options)


def test_a_search_is_that_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Event] = []
    run = search(tmp_path, on_event=lambda event, history: heard.append(event))
    paths = RunPaths(tmp_path / "runs" / "scripted")
    on_disk.make(tmp_path / "same", num_candidates=3, name="scripted")
    assert capsys.readouterr() == ("", "")
    assert run.best is not None
    assert heard == on_disk.events(paths)[2:]  # the watcher comes with the runner, after the run and the session began
    assert isinstance(heard[-1], SessionEnded)
    assert set(run.members["member"]) == set(tune_rh.load("scripted", tmp_path / "runs").members["member"])
    assert run.report() == paths.report / "index.html"
    assert (run.export(tmp_path / "best") / "export.json").is_file()


def test_what_becomes_of_candidates_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    run = search(tmp_path, say=said.append)
    assert run.best is not None
    assert said[0] == f"Run scripted in {tmp_path / 'runs' / 'scripted'}"
    assert sum("  new: " in line for line in said) == 4
    passes = [line for line in said if line.startswith(f"{run.best.candidate}  passes gate 1 (quota, place ")]
    assert len(passes) == 1
    assert [line for line in said if "val_loss=" in line or "starts towards" in line] == []


def test_it_works_in_a_thread_that_is_not_the_main_one(tmp_path: Path) -> None:
    found: list[api.Run] = []
    thread = threading.Thread(target=lambda: found.append(search(tmp_path)))
    thread.start()
    thread.join()
    assert found[0].best is not None


def test_what_a_callback_raises_ends_the_session_and_the_run_goes_on_by_resume(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    num = 0

    def stop(event: Event, history: History) -> None:
        nonlocal num
        num += 1
        if num == 12:
            raise Enough

    with pytest.raises(Enough):
        search(tmp_path, on_event=stop)
    assert tune_rh.load("scripted", tmp_path / "runs").best is None
    resumed = tune_rh.resume("scripted", runs_dir=tmp_path / "runs", runner="local")
    quiet = search(tmp_path / "quiet")
    assert resumed.best == quiet.best
    assert on_disk.curves(RunPaths(resumed.root)) == on_disk.curves(RunPaths(quiet.root))


def test_mistakes_are_errors_with_a_name(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="runner = 'slurm'"):
        tune_rh.search(plan(), runs_dir=tmp_path, runner="slurm")
    with pytest.raises(PlanError, match="overrides"):
        tune_rh.search(plan(), overrides=["seeds=[1]"], runs_dir=tmp_path, runner="local")
    with pytest.raises(PlanError, match="nowhere"):
        tune_rh.load_plan("nowhere.toml")
    with pytest.raises(RunNotFound, match="none"):
        tune_rh.resume("scripted", runs_dir=tmp_path)
    search(tmp_path)
    with pytest.raises(RunExists, match="scripted"):
        search(tmp_path)
    race = tune_rh.load_plan("e55-race")
    with pytest.raises(PlanError, match="a simulation is of a search"):
        tune_rh.simulate(race, tmp_path / "table.parquet")


def test_everything_it_offers_is_found_in_the_package() -> None:
    assert set(tune_rh.__all__) == {*api.__all__, "Task"}
    assert tune_rh.Task is attributes.Task
    assert all(getattr(tune_rh, name) is getattr(api, name) for name in api.__all__)
    with pytest.raises(AttributeError, match="no attribute 'surch'"):
        tune_rh.surch  # noqa: B018
