"""What a diagnostic is called with, opened from checkpoints, runs and exports."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.diagnose.findings import from_json, to_json
from analysis.diagnose.registry import diagnose, get_diagnostic, offered
from analysis.diagnose.subject import Subject, open_checkpoint, open_export, open_member
from analysis.spacing_mdn import baselines
from tests.analysis.conftest import MakeSubject, MakeTask
from tests.analysis.run_folders import read_run
from tests.worlds import records as on_disk
from tests.worlds.checkpoints import rewrite
from trainables.errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch, UnknownFamily
from trainables.spacing_mdn import task as task_module
from trainables.spacing_mdn.data.spacings import SpacingData
from trainables.spacing_mdn.sample import NUM_WINDOWS
from trainables.worker import checkpoint
from tune_rh.record.journal import RunPaths
from tune_rh.results.export import export

FAMILY = "tests.worlds.family:FAMILY"
OF_SPACING_MDN = offered("spacing_mdn")
OF_SLOTS = {
    "slot_ablation",
    "slot_similarity",
    "slot_gradients",
    "readout",
    "slot_effect",
    "slot_norms",
    "attention_profile",
    "permutation",
    "gradient_rank",
    "id_only",
    "content_only",
}
NO_SLOTS: dict[str, Any] = {
    "layout": "none",
    "n_slots": 0,
    "aux_mode": "off",
    "slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "eval_slot_id_mode": "fixed",
    "eval_tail": 8,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of the scripted family, with its checkpoints."""
    paths = on_disk.make(tmp_path_factory.mktemp("runs") / "small", **on_disk.SMALL)
    on_disk.finish(paths)
    return paths


@pytest.fixture
def saved(make_task: MakeTask, tmp_path: Path) -> tuple[Path, Mapping[str, Any]]:
    """A checkpoint of a small spacing model, and its config."""
    task = make_task(seed=3)
    task.step()
    facts = {"family": "spacing_mdn", "config_digest": task.config.digest(), "member": "c0001-s3"}
    return checkpoint.save(tmp_path / "checkpoints", 1, task.state_dict(), facts), task.config.model_dump(mode="json")


def opened(folder: Path, config: Mapping[str, Any], family: str = "spacing_mdn") -> Subject:
    return open_checkpoint(folder, family=family, config=config, seed=3, data_dir="unused")


def test_a_checkpoint_is_the_model_that_was_saved(saved: tuple[Path, Mapping[str, Any]], make_task: MakeTask) -> None:
    subject = opened(*saved)
    weights, _ = checkpoint.load(saved[0])
    assert all(torch.equal(weights["model"][name], value) for name, value in subject.task.model.state_dict().items())
    assert not subject.task.model.training
    assert (subject.member, subject.family, subject.seed) == ("c0001-s3", "spacing_mdn", 3)
    assert subject.config.model_dump(mode="json") == saved[1]
    again = make_task(seed=9)
    again.load_state_dict(weights)
    assert subject.task.evaluate("val") == again.evaluate("val")
    assert len(subject.sample.starts) == NUM_WINDOWS
    assert subject.sample.task is subject.task
    assert subject.data_dir.is_absolute()


def test_what_does_not_fit_says_what_and_where(saved: tuple[Path, Mapping[str, Any]]) -> None:
    folder, config = saved
    with pytest.raises(CheckpointMismatch, match=r"is of family 'spacing_mdn', not 'tests.worlds.family:FAMILY'"):
        opened(folder, config, FAMILY)
    with pytest.raises(CheckpointMismatch, match="made with config"):
        opened(folder, {**config, "lr": 0.5})
    with pytest.raises(CheckpointMismatch, match="does not fit this version of spacing_mdn: gone"):
        opened(folder, {**config, "gone": 1})
    with pytest.raises(CheckpointCorrupt, match="cannot be read"):
        opened(folder.with_name("nowhere"), config)
    index = json.loads((folder / checkpoint.INDEX).read_text())
    rewrite(folder, schema=99)
    with pytest.raises(CheckpointMismatch, match="schema 99"):
        opened(folder, config)
    rewrite(folder, **{**index, "family": "unheard-of"})
    with pytest.raises(UnknownFamily, match="unheard-of"):
        opened(folder, config, "unheard-of")
    rewrite(folder, **index)
    with (folder / checkpoint.WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointCorrupt, match="digest"):
        opened(folder, config)


def test_weights_of_another_version_of_the_model_are_refused(
    saved: tuple[Path, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = task_module.SpacingModel

    def wider(config: Any) -> torch.nn.Module:
        model = built(config)
        model.register_buffer("new", torch.zeros(1))
        return model

    monkeypatch.setattr(task_module, "SpacingModel", wider)
    with pytest.raises(CheckpointMismatch, match="its weights do not fit this version of spacing_mdn"):
        opened(*saved)


def test_a_member_is_its_best_checkpoint(finished: RunPaths) -> None:
    subject = open_member(read_run(finished.root), "c0000-s42", finished.root.parent)
    best = checkpoint.linked(finished.member("c0000-s42") / "checkpoints", "best")
    assert best is not None
    weights, index = checkpoint.load(best)
    assert subject.task.model.state_dict()["weight"].item() == weights["model"]["weight"].item() == index["step"]
    assert (subject.member, subject.seed, subject.sample) == ("c0000-s42", 42, None)


def test_a_member_that_is_not_there_or_has_nothing_says_so(finished: RunPaths) -> None:
    with pytest.raises(CheckpointError, match=r"'c0099-s7': is not in .*those that have trained: c0000-s42, c0000-s7"):
        open_member(read_run(finished.root), "c0099-s7", finished.root.parent)
    with pytest.raises(CheckpointError, match=r"c0002-s7 \(diverged\) has no best checkpoint"):
        open_member(read_run(finished.root), "c0002-s7", finished.root.parent)


def test_an_export_is_opened_as_it_was_measured(finished: RunPaths, tmp_path: Path) -> None:
    from tune_rh.run import runs

    _, history = runs.replay(finished)
    export(finished, history, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "export.json").read_text())
    subject = open_export(tmp_path / "out", finished.root.parent)
    same = open_member(read_run(finished.root), index["member"], finished.root.parent)
    assert (subject.member, subject.seed, subject.config) == (same.member, same.seed, same.config)
    assert torch.equal(subject.task.model.state_dict()["weight"], same.task.model.state_dict()["weight"])
    (tmp_path / "out" / "config.toml").write_text("floor = 1.0\n")
    with pytest.raises(CheckpointCorrupt, match="was changed"):
        open_export(tmp_path / "out", finished.root.parent)


@pytest.mark.parametrize("slots", [True, False], ids=["slots", "no slots"])
@pytest.mark.parametrize("name", OF_SPACING_MDN)
def test_a_diagnostic_answers_for_a_model_fresh_from_its_seed(
    name: str,
    slots: bool,
    make_subject: MakeSubject,
    make_task: MakeTask,
    splits: SpacingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diagnostic: Any = get_diagnostic("spacing_mdn", name)
    monkeypatch.setattr(baselines, "_MAX_TARGETS", 50)
    for module in (baselines, inspect.getmodule(diagnostic.load().answer)):
        if hasattr(module, "load"):
            monkeypatch.setattr(module, "load", lambda dataset, data_dir: splits)
    task = make_task(**({} if slots else NO_SLOTS))
    finding = diagnostic(make_subject(task, number=32))
    assert finding.name == name
    assert finding.verdict in ("pass", "warn", "fail", "no_evidence")
    assert finding.verdict == "no_evidence" or finding.values
    assert slots or name not in OF_SLOTS or (finding.verdict, finding.values) == ("no_evidence", {})
    assert finding.summary.endswith(".")
    assert finding.verdict == "no_evidence" or set(finding.threshold) <= set(finding.values)
    assert finding.threshold or finding.verdict in ("pass", "no_evidence")
    (back,) = from_json(to_json([finding]))
    assert (back.name, back.verdict, set(back.values)) == (name, finding.verdict, set(finding.values))
    assert back.threshold == finding.threshold


@pytest.mark.parametrize("slots", [2, 4])
def test_without_the_data_set_no_diagnostic_raises(
    slots: int, make_subject: MakeSubject, make_task: MakeTask, tmp_path: Path
) -> None:
    """A checkpoint can be looked at where only the sampled windows are at hand."""
    small = make_subject(make_task(n_slots=slots), number=16)
    subject = Subject("c0000-s0", "spacing_mdn", small.config, 0, small.task, small.sample, tmp_path / "nowhere")
    findings = {finding.name: finding for finding in diagnose(subject)}
    assert tuple(findings) == OF_SPACING_MDN
    for name in ("content_only", "baselines"):
        assert findings[name].verdict == "no_evidence"
        assert "nowhere" in findings[name].summary
