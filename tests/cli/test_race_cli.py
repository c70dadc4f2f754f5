"""`tune-rh race` and `tune-rh ab --bisect` from the first word to the report, with checkpoints, on scripted curves."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tune_rh
from tests.cli.test_ab import FAMILY, Desk, written
from tests.worlds.family import ScriptedTask
from tests.worlds.records import NoMirror, decided, events, finish, make, of, open_search
from tune_rh.decide import comparison as compare
from tune_rh.errors import PlanError
from tune_rh.record.events import CandidateAdded, JobStarted, SessionEnded
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.journal import RunPaths
from tune_rh.results.own_reports import own_report
from tune_rh.results.reading import read
from tune_rh.results.reporting import write
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.session import Session

pytestmark = pytest.mark.usefixtures("no_drawing")

SIDES: dict[str, dict[str, Any]] = {
    "a": {"preset": "control", "noise": 0.01},
    # Floor is guilty; rate and span do next to nothing, and the bend none without its kind.
    "b": {"preset": "control", "noise": 0.01, "floor": 1.25, "rate": 0.0101, "span": 2.001, "bend": 0.4},
}


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    for name, side in SIDES.items():
        written(Path(f"{name}.toml"), family=FAMILY, **side)
    return Desk(tmp_path, capsys)


# --- races -----------------------------------------------------------------------------------------------------------

RACE = ["--seeds", "7", "42", "1", "2", "--steps", "20", "--keep", "2", "--then", "40", "--eval-every", "10"]


def test_a_race_goes_from_seeds_to_a_report_and_an_export(desk: Desk) -> None:
    code, out, err = desk("race", FAMILY, "--preset", "a.toml", *RACE, "--runner", "local")
    assert (code, err) == (0, "")
    run = desk.folder / "runs" / "a-race"
    paths = RunPaths(run)
    _, history = runs.replay(paths)
    members = history.candidates["c0000"].members
    at_gate = sorted(members, key=lambda seed: members[seed].curve.values[1])
    assert {seed for seed, member in members.items() if member.step == 40} == set(at_gate[:2])
    assert {seed for seed, member in members.items() if member.tested} == set(at_gate[:2])
    written = {p.name for p in (run / "report").iterdir()}
    assert written >= {"race.md", "race.png", "race.csv", "race.json", "index.html"}
    rows = list(csv.DictReader((run / "report" / "race.csv").open()))
    assert {int(row["seed"]): int(row["steps"]) for row in rows} == {s: m.step for s, m in members.items()}
    best = min(at_gate[:2], key=lambda seed: members[seed].curve.best)
    assert f"Best: seed {best} " in out
    assert json.loads((run / "best" / "export.json").read_text())["seed"] == best
    assert f"Report: {run / 'report' / 'index.html'}" in out


def test_a_race_asked_for_in_python_is_that_of_the_command_line(desk: Desk) -> None:
    assert desk("race", FAMILY, "--preset", "a.toml", *RACE, "--runner", "local")[0] == 0
    run = tune_rh.race(
        "a.toml", seeds=[7, 42, 1, 2], steps=20, keep=2, then=40, eval_every=10, runs_dir="own", runner="local"
    )
    assert decided(RunPaths(run.root)) == decided(RunPaths(desk.folder / "runs" / "a-race"))
    with pytest.raises(PlanError, match="keep = 5: more than the 4 seeds"):
        tune_rh.race("a.toml", seeds=[7, 42, 1, 2], steps=20, keep=5, then=40, runs_dir="own")


def test_a_race_whose_test_cannot_be_read_says_so_and_exits_4(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ScriptedTask.evaluate

    def only_val(task: ScriptedTask, split: str = "val") -> dict[str, float]:
        if split == "test":
            raise RuntimeError("no test here")
        return read(task, split)

    monkeypatch.setattr(ScriptedTask, "evaluate", only_val)
    words = [FAMILY, "--preset", "a.toml", *RACE, "--runner", "local"]
    code, out, err = desk("race", *words)
    assert (code, out) == (3, "")
    assert "T03 task.evaluate('test'): fails: RuntimeError: no test here (" in err
    code, out, err = desk("race", *words, "--no-trial")
    assert (code, err) == (4, "")
    assert re.search(r"warning: reading test failed for c0000-s\d+, c0000-s\d+: RuntimeError: no test here \(", out)
    assert "Best: seed" in out
    assert (desk.folder / "runs" / "a-race" / "best" / "README.md").is_file()


def test_a_race_goes_on_without_a_seed_that_fails_and_exits_4(desk: Desk) -> None:
    # The first to come there fails, and leaves the mark that lets the others pass.
    written(Path("once.toml"), family=FAMILY, **SIDES["a"], fail_at=5, fail_marker=str(desk.folder / "failed"))
    words = [*RACE, "--runner", "local", "--set", "resources.max_failures=0"]
    code, out, err = desk("race", FAMILY, "--preset", "once.toml", *words)
    assert (code, err) == (4, "")
    assert "c0000-s7 failed after its retries: RuntimeError: scripted failure at step 5" in out
    run = desk.folder / "runs" / "once-race"
    rows = {row["seed"]: row for row in csv.DictReader((run / "report" / "race.csv").open())}
    assert (rows["7"]["status"], rows["7"]["best"]) == ("failed", "")
    assert [row["status"] for row in rows.values()].count("completed") == 2
    assert (run / "best").is_dir()


def test_a_race_of_which_all_fail_says_so_and_exports_nothing(desk: Desk) -> None:
    words = [*RACE, "--runner", "local", "--set", "resources.max_failures=0"]
    code, out, err = desk("race", FAMILY, "--preset", "failing", *words)
    assert (code, err) == (4, "")
    assert out.count("scripted failure at step 5") >= 4
    run = desk.folder / "runs" / "failing-race"
    assert (run / "report" / "race.md").is_file()
    assert not (run / "best").exists()


# --- comparisons -----------------------------------------------------------------------------------------------------

AB = ["--steps", "20", "--eval-every", "10", "--seeds", "6", "--bisect"]


def test_a_comparison_finds_the_guilty_key_and_is_said_again_without_being_run_again(desk: Desk) -> None:
    code, out, err = desk("ab", "a.toml", "b.toml", *AB, "--runner", "local")
    assert (code, err) == (0, "")
    assert "B (b) is worse than A (a)" in out
    assert "Guilty: floor" in out
    run = desk.folder / "runs" / "a-vs-b"
    paths = RunPaths(run)
    _, history = runs.replay(paths)
    assert compare.suspects(history) == ("bend", "floor", "rate", "span")
    state = compare.bisection(history)
    assert state is not None
    assert (state.causes, state.wanted) == ((frozenset({"floor"}),), ())
    labels = [e.label for e in of(paths, CandidateAdded)]
    assert labels[:2] == ["a", "b"]
    assert all(label.startswith("a with ") and label.endswith(" of b") for label in labels[2:])
    read = sorted(str(e.member) for e in of(paths, ReadOfTest))
    assert read == sorted(f"c000{side}-s{seed}" for side in (0, 1) for seed in range(6))
    names = {p.name for p in (run / "report").iterdir()}
    assert names >= {"comparison.md", "comparison.json", "difference.png", "difference.csv", "bisection.png"}
    said = json.loads((run / "report" / "comparison.json").read_text())
    assert (said["verdict"], said["decided"], said["num_pairs"]) == ("worse", True, 6)
    before = paths.journal.read_bytes()
    code, again, _ = desk("resume", "a-vs-b", "--runner", "local")
    assert (code, "finished already" in again, "Guilty: floor" in again) == (0, True, True)
    assert paths.journal.read_bytes() == before


def test_a_comparison_asked_for_in_python_is_that_of_the_command_line(desk: Desk) -> None:
    assert desk("ab", "a.toml", "b.toml", *AB, "--runner", "local")[0] == 0
    run = tune_rh.compare(
        "a.toml", "b.toml", steps=20, seeds=6, eval_every=10, bisect=True, runs_dir="own", runner="local"
    )
    assert decided(RunPaths(run.root)) == decided(RunPaths(desk.folder / "runs" / "a-vs-b"))
    assert run.claim is not None
    assert (run.claim.verdict, run.claim.num_pairs) == ("worse", 6)
    with pytest.raises(PlanError, match=r"compare\.region = -1"):
        tune_rh.compare("a.toml", "b.toml", steps=20, settings={"region": -1}, runs_dir="own")


def test_alike_by_all_that_counts_is_equivalent_and_nothing_is_bisected(desk: Desk) -> None:
    written(Path("b.toml"), family=FAMILY, **{**SIDES["b"], "floor": 1.0})
    code, out, err = desk("ab", "a.toml", "b.toml", *AB, "--region", "0.05", "--runner", "local")
    assert (code, err) == (0, "")
    assert "equivalent" in out
    assert "Guilty" not in out
    assert not (desk.folder / "runs" / "a-vs-b" / "report" / "bisection.png").exists()


# --- interrupted -----------------------------------------------------------------------------------------------------


def made(root: Path) -> RunPaths:
    """A comparison with a bisection, and a patience of its own among the suspects."""
    configs = {
        name: {"preset": "control", "fields": {k: v for k, v in side.items() if k != "preset"}}
        for name, side in SIDES.items()
    }
    configs["b"]["patience_steps"] = 10
    return make(
        root,
        control="a",
        presets=["b"],
        configs=configs,
        num_candidates=1,
        seeds=list(range(6)),
        stages=[{"until_step": 20, "num_seeds": 6}],
        compare={"bisect": True},
        scoring={},
    )


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


def raced(root: Path) -> RunPaths:
    """A race of four seeds."""
    stages = [{"until_step": 20, "num_seeds": 4, "top": 2}, {"until_step": 40, "num_seeds": 4}]
    return make(root, unit="member", num_candidates=0, seeds=[7, 42, 1, 2], stages=stages, fixed={}, scoring={})


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("making", [made, raced])
def test_every_prefix_has_a_report(tmp_path: Path, making: Callable[[Path], RunPaths]) -> None:
    paths = making(tmp_path / "run")
    finish(paths)
    lines = paths.journal.read_bytes().splitlines(keepends=True)
    for num in range(len(lines)):
        paths.journal.write_bytes(b"".join(lines[:num]))
        reading = read(paths)
        own = own_report(reading.run, reading.history)
        assert own is None or own[0].lines(own[1])
        if num < 8:
            assert write(reading, tmp_path).exists()


@pytest.mark.usefixtures("light")
def test_stopped_again_and_again_a_comparison_comes_to_the_same(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole")
    finish(whole)
    num = len(events(whole))
    paths = made(tmp_path / "cut")
    stops = 0
    for stop_after in (3, num // 3, num // 4, num // 5):
        run, search = open_search(paths)
        count = 0

        def watch(_event: object, limit: int = stop_after, to_stop: Session = search) -> None:
            nonlocal count
            count += 1
            if count == limit:
                to_stop.request_stop()

        search.listeners.append(watch)
        LocalRunner(run).run(search)
        stops += search.stopping
        search.close("interrupted" if search.stopping else "finished")
    history = finish(paths)
    assert stops == 4
    assert [e.reason for e in of(paths, SessionEnded)] == ["interrupted"] * 4 + ["finished"]
    assert decided(paths) == decided(whole)
    state = compare.bisection(history)
    assert state is not None
    assert state.causes == (frozenset({"floor"}),)
    assert "patience_steps" in compare.suspects(history)
    # A member is started again only where a stop cut it short.
    assert len(of(paths, JobStarted)) <= len(of(whole, JobStarted)) + stops
