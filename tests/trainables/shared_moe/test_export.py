"""An exported language model stands alone: its tokenizer comes with it, and says what the model was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import trainables
from tests.worlds import exports
from trainables.worker import exported


@pytest.fixture(scope="module")
def folder(pydoc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best of a search of two tiny models."""
    root = tmp_path_factory.mktemp("search")
    return exports.exported("shared_moe", root, pydoc_dir, seeds=(7, 42), until_step=4)


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
