"""What is exported is what was measured: the same weights, the same numbers, to the last bit."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import trainables
from tests.worlds.plans import fields
from trainables.errors import CheckpointCorrupt
from trainables.spacing_mdn import task as task_module
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.worker import exported
from tune_rh.errors import ExportError, PlanError
from tune_rh.plan.file import resolve_plan
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import ranking
from tune_rh.results.export import export
from tune_rh.run import runs
from tune_rh.run.chosen import chosen
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session


def _part(num_blocks: int, seed: int) -> Part:
    spacings = np.random.default_rng(seed).gamma(6.0, 1 / 6.0, size=num_blocks * BLOCK) + 1e-3
    return Part(spacings, np.linspace(2.0, 9.0, num_blocks))


class _Source:
    def digest(self, name: str, data_dir: Path) -> str:
        return "made up"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[runs.OpenRun]:
    """A search over tiny spacing models on made-up spacings, finished in process; its data stay made up."""
    splits = SpacingData("first100k", _part(8, 0), _part(3, 1), _part(3, 2), "made up")
    plan = resolve_plan(
        fields(
            family="spacing_mdn",
            space="cpu-quickstart",
            control="tiny",
            presets=["cpu-e0"],
            num_candidates=1,
            fixed={"data": "first100k", "width": 8, "n_heads": 2, "batch_size": 4, "context": 64},
            seeds=[7, 42],
            eval_every=2,
            stages=[{"until_step": 2, "num_seeds": 2}, {"until_step": 4, "num_seeds": 2}],
        )
    )
    root = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_module, "load", lambda name, data_dir: splits)
        patch.setattr(runs, "data_source", lambda family: _Source())
        run = runs.open_run(runs.create(plan, root / "run", root / "data"), root / "data")
        search = start_session(run, runner="local", slots=1)
        LocalRunner(run).run(search)
        search.close("finished")
        yield run


@pytest.fixture
def finished(searched: runs.OpenRun, tmp_path: Path) -> tuple[runs.OpenRun, Path]:
    """The search, and an empty folder."""
    return searched, tmp_path


def test_loading_and_evaluating_gives_the_recorded_metrics_to_the_last_bit(
    finished: tuple[runs.OpenRun, Path],
) -> None:
    run, folder = finished
    export(run.paths, run.history, folder / "out")
    recorded = json.loads((folder / "out" / "metrics.json").read_text())
    for split in ("val", "test"):
        again = exported.evaluate(folder / "out", split, folder / "data")  # type: ignore[arg-type]
        assert again == {name: recorded[name] for name in again}
        assert f"{split}_nll" in again


def test_load_gives_the_model_ready_for_use(finished: tuple[runs.OpenRun, Path]) -> None:
    import torch

    run, folder = finished
    chosen = export(run.paths, run.history, folder / "out")
    model = trainables.load(folder / "out")
    assert not model.training
    member = json.loads((folder / "out" / "export.json").read_text())["member"]
    assert member.startswith(chosen.candidate)
    prediction = model(torch.zeros(1, model.config.context, 1))
    assert torch.isfinite(prediction.mu).all()


def test_the_best_is_chosen_by_the_pessimistic_bound_and_another_on_request(
    finished: tuple[runs.OpenRun, Path],
) -> None:
    run, folder = finished
    rows = ranking(run.history)
    assert len(rows) == 2
    assert [row.bound for row in rows] == sorted(row.bound for row in rows)
    assert export(run.paths, run.history, folder / "best") == rows[0]
    assert export(run.paths, run.history, folder / "other", rows[1].candidate) == rows[1]


def test_seeds_table_has_every_seed_with_both_splits(finished: tuple[runs.OpenRun, Path]) -> None:
    run, folder = finished
    chosen = export(run.paths, run.history, folder / "out")
    with (folder / "out" / "seeds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["7", "42"]
    assert np.mean([float(row["val_nll"]) for row in rows]) == pytest.approx(chosen.val, abs=1e-12)
    assert np.mean([float(row["test_nll"]) for row in rows]) == pytest.approx(chosen.test, abs=1e-12)


@pytest.mark.parametrize("name", ["model.safetensors", "config.toml"])
def test_a_changed_export_is_refused(finished: tuple[runs.OpenRun, Path], name: str) -> None:
    run, folder = finished
    export(run.paths, run.history, folder / "out")
    path = folder / "out" / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"lr = ", b"lr = 1") if name == "config.toml" else content[:-1] + b"\x01")
    with pytest.raises(CheckpointCorrupt):
        trainables.load(folder / "out")


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"schema": 1, "family": ["shared_moe"]}'])
def test_an_index_that_is_none_is_refused(finished: tuple[runs.OpenRun, Path], content: str) -> None:
    run, folder = finished
    export(run.paths, run.history, folder / "out")
    (folder / "out" / "export.json").write_text(content)
    with pytest.raises(CheckpointCorrupt, match=r"out: is no exported config of this version"):
        trainables.load(folder / "out")
    with pytest.raises(PlanError, match=r"out: is no exported config of this version"):
        chosen(str(folder / "out"), None, folder)


def test_a_corrupt_checkpoint_is_not_exported_and_leaves_no_folder(finished: tuple[runs.OpenRun, Path]) -> None:
    run, folder = finished
    chosen = ranking(run.history)[0]
    paths = RunPaths(folder / "run")
    shutil.copytree(run.paths.root, paths.root, symlinks=True)
    for weights in (paths.root / "members").glob(f"{chosen.candidate}-*/checkpoints/best/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointCorrupt):
        export(paths, run.history, folder / "out")
    assert not (folder / "out").exists()


def test_a_folder_in_use_is_refused(finished: tuple[runs.OpenRun, Path]) -> None:
    run, folder = finished
    (folder / "out").mkdir()
    (folder / "out" / "mine").touch()
    with pytest.raises(ExportError, match="not empty"):
        export(run.paths, run.history, folder / "out")
