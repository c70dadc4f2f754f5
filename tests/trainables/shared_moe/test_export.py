"""An exported language model stands alone: its tokenizer comes with it, and says what the model was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import trainables
from tests.worlds.plans import fields
from trainables.worker import exported
from tune_rh.plan.file import resolve_plan
from tune_rh.results.export import export
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session


@pytest.fixture(scope="module")
def folder(pydoc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best of a search of two tiny models."""
    root = tmp_path_factory.mktemp("search")
    plan = resolve_plan(
        fields(
            family="shared_moe",
            space="",
            control="tiny",
            presets=["quick"],
            configs={"quick": {"preset": "tiny", "fields": {"lr": 0.01}}},
            num_candidates=1,
            seeds=[7, 42],
            eval_every=2,
            stages=[{"until_step": 4, "num_seeds": 2}],
            diagnose=[],
        )
    )
    paths = runs.create(plan, root / "run", pydoc_dir)
    run = runs.open_run(paths, pydoc_dir)
    search = start_session(run, runner="local", slots=1)
    LocalRunner(run).run(search)
    search.close("finished")
    export(paths, run.history, root / "best", companions=runs.companions(plan, pydoc_dir))
    return root / "best"


def test_it_reads_and_writes_text_without_the_data(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode("The import statement").ids])
    logits = trainables.load(folder)(ids).logits
    assert logits.shape == (1, ids.shape[1], tokenizer.get_vocab_size())
    assert isinstance(tokenizer.decode([int(logits[0, -1].argmax())]), str)


def test_licence_and_sources_of_the_text_come_with_it(folder: Path) -> None:
    about = json.loads((folder / "data.json").read_text())
    assert about["licence"] == "PSF-2.0"
    assert "`tokenizer.json`" in (folder / "README.md").read_text()


def test_the_recorded_metric_comes_again_to_the_last_bit(folder: Path, pydoc_dir: Path) -> None:
    recorded = json.loads((folder / "metrics.json").read_text())
    for split, name in (("val", "eval_loss"), ("test", "test_eval_loss")):
        assert exported.evaluate(folder, split, pydoc_dir)[name] == recorded[name]
