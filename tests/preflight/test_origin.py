"""What has changed since a run began is named when it is resumed, and goes on only where that is accepted."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tune_rh
from search_spaces.api import Space, Trial
from tests.worlds import family
from tests.worlds.plans import plan
from tune_rh.errors import PreflightRefused
from tune_rh.plan.from_task import family_of
from tune_rh.preflight import origin
from tune_rh.preflight.origin import check_origin, made_by, sources
from tune_rh.record.events import FindingAccepted, PlanChanged
from tune_rh.record.journal import RunPaths, read


def test_nothing_has_changed_in_the_same_code() -> None:
    first = made_by(plan())
    assert check_origin(first, made_by(plan())) == []
    assert first["space 'tests.worlds.family:SPACE', floor"] == "0.1 to 2.0"
    assert first["space 'tests.worlds.family:SPACE', rate"] == "0.001 to 0.1 in the logarithm"
    assert {"torch", "source tests.worlds.family", "source trainables.training.step"} <= first.keys()
    assert check_origin({}, first) == []


def test_every_file_of_a_registered_family_is_its_source() -> None:
    made = made_by(plan(family="spacing_mdn", space="cpu-quickstart", control="cpu-e0"))
    assert {"source trainables.spacing_mdn.task", "source trainables.spacing_mdn.data.zeros"} <= made.keys()
    assert "source trainables.shared_moe.task" not in made


def test_each_change_is_named_with_both_values() -> None:
    was = {"torch": "2.11", "space 's', lr": "0.1 to 1.0", "space 's', old": "1 to 2", "source a.b": "aa"}
    now = {"torch": "2.13", "space 's', lr": "0.1 to 2.0", "space 's', new": "3 to 4", "source a.b": "bb"}
    assert sorted(map(str, check_origin(was, now))) == [
        "P45 space 's', lr: was 0.1 to 1.0, is 0.1 to 2.0",
        "P45 space 's', new: was nothing, is 3 to 4",
        "P45 space 's', old: was 1 to 2, is nothing",
        "P46 torch: was 2.11, is 2.13",
        "P47 source a.b: was aa, is bb",
    ]


def test_the_source_of_a_family_in_one_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own_family_of_one_file.py"
    own.write_text("from tests.worlds.family import *\nfrom tests.worlds.family import FAMILY as _F\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = own.stem
    parts = {part: f"{name}:{getattr(family.FAMILY, part).partition(':')[2]}" for part in ("config", "model", "task")}
    monkeypatch.setattr(origin, "get_family", lambda _: replace(family.FAMILY, **parts))
    before = made_by(plan())
    assert f"source {name}" in before
    assert "source tests.worlds.family" not in before
    own.write_text(own.read_text() + "# another loss\n")
    assert [finding.part for finding in check_origin(before, made_by(plan()))] == [f"source {name}"]


def wider(trial: Trial) -> dict[str, object]:
    return {**family.suggest(trial), "floor": trial.suggest_float("floor", 0.1, 2.0)} | {
        "noise": trial.suggest_float("noise", 0.0, 0.5)
    }


def test_a_run_goes_on_despite_a_change_once_it_is_accepted_and_not_despite_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = plan(num_candidates=2, stages=[{"until_step": 10, "num_seeds": 1}])
    places = {"runs_dir": tmp_path, "data_dir": tmp_path, "runner": "local"}
    tune_rh.search(small, **places)  # type: ignore[arg-type]
    journal = RunPaths(tmp_path / small.name).journal

    def cut() -> None:
        """Take the end of the run away, so that there is something to go on with."""
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:-2]))

    def resume(*accept: str) -> None:
        cut()
        tune_rh.resume(small.name, accept=accept, **places)  # type: ignore[arg-type]

    resume()
    monkeypatch.setattr(family, "SPACE", Space(suggest=wider, base="control"))
    monkeypatch.setattr(origin, "version", lambda name: "99.0")
    with pytest.raises(PreflightRefused) as refused:
        resume()
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "P46 torch",
        "P45 space 'tests.worlds.family",
        "To go on all the same",
    ]
    assert "noise: was nothing, is 0.0 to 0.5" in lines[1]
    with pytest.raises(PreflightRefused, match=r"^P46 torch: was .*, is 99.0\nTo go on all the same: --accept P46$"):
        resume("P45")
    resume("P45", "P46")
    resume()
    accepted = [event for event in read(journal) if isinstance(event, FindingAccepted)]
    assert [event.id for event in accepted] == ["P46", "P45"]
    monkeypatch.setattr(origin, "version", lambda name: "100.0")
    with pytest.raises(PreflightRefused, match=r"P46 torch: was .*, is 100.0"):
        resume()


def test_a_session_that_is_refused_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = plan(num_candidates=2, stages=[{"until_step": 10, "num_seeds": 1}])
    tune_rh.search(small, runs_dir=tmp_path, data_dir=tmp_path, runner="local")
    journal = RunPaths(tmp_path / small.name).journal
    before = journal.read_bytes()
    monkeypatch.setattr(origin, "version", lambda name: "99.0")

    def resume(**options: Any) -> None:
        grown = ["num_candidates=3"]
        tune_rh.resume(small.name, overrides=grown, runs_dir=tmp_path, data_dir=tmp_path, runner="local", **options)

    with pytest.raises(PreflightRefused, match="P46"):
        resume()
    assert journal.read_bytes() == before
    resume(accept=["P46"])
    new = list(read(journal))[len(before.splitlines()) :]
    assert [type(event) for event in new[:2]] == [PlanChanged, FindingAccepted]
    assert len(tune_rh.load(small.name, tmp_path).run.candidates) == 4


class Constant:
    """A task that learns nothing."""

    def __init__(self, config: Any, *, seed: int, device: str, data_dir: Path) -> None: ...

    def step(self) -> dict[str, float]:
        return {"train_loss": 0.0}

    def evaluate(self, split: str) -> dict[str, float]:
        return {f"{split}_loss": 0.0}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def test_what_was_started_is_no_source_of_a_task_that_was_typed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Constant, "__module__", "__main__")
    family = family_of(Constant, base={"lr": 0.1}, objective="val_loss")
    started = ModuleType("__main__")
    started.__spec__ = find_spec("tune_rh.__main__")
    monkeypatch.setitem(sys.modules, "__main__", started)
    assert [name for name, _ in sources(family) if name.startswith("tune_rh")] == []
