"""`tune-rh generate`: text from an exported language model, and what it refuses before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import alone
from tests.worlds import exports
from trainables.registry import get_family, resolve
from tune_rh.cli.main import main

pytestmark = pytest.mark.usefixtures("no_drawing")
SETS = {"nsa": "pydoc-257", "shared_moe": "pydoc"}


@pytest.fixture(scope="module")
def exported(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each family of language models, hardly trained, as `tune-rh export` leaves it."""
    folders = {}
    for family, data in SETS.items():
        with alone(data_dir):
            resolve(get_family(family).data).prepare(data, data_dir)
        folders[family] = exports.exported(family, tmp_path_factory.mktemp(family), data_dir, seeds=(7,), until_step=2)
    return folders


@pytest.mark.parametrize("family", SETS)
def test_a_text_goes_on_and_a_seed_repeats_it(
    family: str, exported: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def said(seed: int) -> str:
        words = ["--prompt", "The ", "--tokens", "8", "--seed", str(seed)]
        assert main(["generate", str(exported[family]), *words]) == 0
        return capsys.readouterr().out

    first = said(0)
    assert first.startswith("The ")
    assert first == said(0)
    assert {said(seed) for seed in range(1, 4)} != {first}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--prompt", ""], "prompt: it is empty"),
        (["--prompt", "a\udcffb"], r"prompt: byte b'\xff' at character 1 is no UTF-8"),
        (["--prompt", "a" * 200], "prompt: it has 200 tokens; allowed are 95"),
        (["--prompt", "abc", "--tokens", "94"], "tokens = 94: allowed are 93 after a prompt of 3"),
        (["--prompt", "abc", "--tokens", "0"], "tokens = 0: allowed is 1 or more"),
        (["--prompt", "abc", "--temperature", "0"], "temperature = 0: allowed is a number above 0"),
        (["--prompt", "abc", "--temperature", "-2"], "temperature = -2: allowed"),
        (["--prompt", "abc", "--top-p", "1.1"], "top_p = 1.1: allowed"),
        (["--prompt", "abc", "--seed", "-1"], "seed = -1: allowed"),
    ],
)
def test_what_cannot_go_on_is_refused_by_name(
    words: list[str], expected: str, exported: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", str(exported["nsa"]), *words]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("file", ["tokenizer.json", "data.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(
    file: str, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported["nsa"], folder)
    (folder / file).unlink()
    assert main(["generate", str(folder), "--prompt", "abc", "--tokens", "2"]) == 2
    assert file in capsys.readouterr().err


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path), "--prompt", "abc"]) == 2
    assert "is no exported config of this version: is not there" in capsys.readouterr().err


def test_a_tokenizer_of_another_model_and_weights_of_another_shape_are_refused(
    exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported["nsa"], folder)
    shutil.copy(exported["shared_moe"] / "tokenizer.json", folder)
    assert main(["generate", str(folder), "--prompt", "abc", "--tokens", "2"]) == 2
    assert "its tokenizer is not the one that its data set had" in capsys.readouterr().err
    shutil.copy(exported["nsa"] / "tokenizer.json", folder)
    shutil.copy(exported["shared_moe"] / "model.safetensors", folder)
    index = json.loads((folder / "export.json").read_text())
    index["weights_sha256"] = json.loads((exported["shared_moe"] / "export.json").read_text())["weights_sha256"]
    (folder / "export.json").write_text(json.dumps(index))
    assert main(["generate", str(folder), "--prompt", "abc", "--tokens", "2"]) == 2
    assert "model.safetensors: does not fit its config" in capsys.readouterr().err
