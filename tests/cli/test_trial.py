"""The trial round trip before a launch, and `tune-rh check`: what stops a run, what is only said, what is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.worlds import plans
from tests.worlds.family import ScriptedTask
from tests.worlds.records import SMALL, curves, decided
from tune_rh import api
from tune_rh.cli.main import main
from tune_rh.errors import PreflightRefused
from tune_rh.plan.file import resolve_plan
from tune_rh.record.events import FindingAccepted
from tune_rh.record.journal import RunPaths, read

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """The words of a small search in ``tmp_path``."""
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(plans.fields(name="run", **SMALL)))
    places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path)]
    return ["search", str(tmp_path / "plan.toml"), "--runner", "local", *places]


def no_objective(task: ScriptedTask, split: str = "val") -> dict[str, Any]:
    return {"val_acc": 1.0} if split == "val" and task._step < 5 else {f"{split}_loss": 1.0, "acc": 0.5}


def test_a_task_that_does_not_work_is_refused_before_anything_is_written(
    place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ScriptedTask, "evaluate", no_objective)
    monkeypatch.setattr(ScriptedTask, "load_state_dict", lambda self, state: None)
    assert main(place) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("tune-rh: ").split(": ")[0] for line in lines] == [
        "T04 task.evaluate('val')", "T05 task.load_state_dict()", "To go on all the same",
    ]  # fmt: skip
    assert lines[-1].endswith("--accept T04 --accept T05")
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_is_accepted_is_recorded_and_without_the_trial_nothing_is_asked(
    place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ScriptedTask, "evaluate", no_objective)
    assert main([*place, "--accept", "T04"]) == 0
    out = capsys.readouterr().out
    assert "accepted: T04 task.evaluate('val'): does not report val_loss" in out
    accepted = [e for e in read(RunPaths(tmp_path / "runs" / "run").journal) if isinstance(e, FindingAccepted)]
    assert [(event.id, event.part) for event in accepted] == [("T04", "task.evaluate('val')")]
    assert main([*place, "--no-trial", "--name", "other"]) == 0
    assert "T04" not in capsys.readouterr().out
    assert not [e for e in read(RunPaths(tmp_path / "runs" / "other").journal) if isinstance(e, FindingAccepted)]


def test_the_trial_changes_no_figure(tmp_path: Path) -> None:
    found = []
    for trial in (True, False):
        plan = resolve_plan(plans.fields(name=f"run-{trial}", **SMALL))
        run = api.search(plan, runs_dir=tmp_path, data_dir=tmp_path, runner="local", trial=trial)
        found.append((decided(RunPaths(run.root)), curves(RunPaths(run.root))))
    assert found[0] == found[1]


def test_from_python_it_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedTask, "step", lambda self: {"train_loss": None})
    plan = resolve_plan(plans.fields(**SMALL))
    with pytest.raises(PreflightRefused, match=r"T04 task\.step\(\): reports train_loss = None \(NoneType\)"):
        api.search(plan, runs_dir=tmp_path, data_dir=tmp_path, runner="local")


def test_a_metric_that_a_rule_needs_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    health = {"health": [{"metric": "absent", "at_least": 0.5}]}
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(plans.fields(name="run", **{**SMALL, "rules": health})))
    places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path), "--runner", "local"]
    assert main(["preflight", str(tmp_path / "plan.toml"), *places]) == 0
    out = capsys.readouterr().out
    assert "warning: T04 task.evaluate('val'): does not report absent, without which the plan's rules let no" in out
    assert main(["preflight", str(tmp_path / "plan.toml"), *places, "--no-trial"]) == 0
    assert "T04" not in capsys.readouterr().out


def test_check_tries_a_family_with_its_presets_and_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", "tests.worlds.typed:FAMILY", "--data-dir", str(tmp_path)]
    assert main(words) == 0
    assert "0 of 0 findings would refuse a launch; task tried with preset 'control'" in capsys.readouterr().out
    monkeypatch.setattr(ScriptedTask, "state_dict", lambda self: {"model": {}, "odd": Path("x"), "more": {1, "a"}})
    assert main([*words, "--preset", "deep"]) == 3
    out = capsys.readouterr().out
    assert "wrong: T05 task.state_dict(): state['odd'] is pathlib.PosixPath" in out
    assert re.search(r"1 of 1 findings would refuse a launch; task tried with preset 'deep'", out)
    assert main([*words, "--preset", "deeper"]) == 2
    assert "preset = 'deeper': typed has no such preset; known: control" in capsys.readouterr().err
    assert main(["check", "nowhere:FAMILY"]) == 2
