"""What people type by mistake: each is refused in a few lines that name the field, its value and what is allowed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from analysis.escape import brief
from tests.worlds.plans import fields
from trainables.errors import CheckpointCorrupt, shortened, shown
from trainables.files import read_fields
from trainables.registry import resolve
from trainables.worker import exported
from tune_rh.cli.main import main

FAMILY = "tests.worlds.family:FAMILY"
AB = ("ab", "control", "good", "--family", FAMILY, "--dry-run", "--steps")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dry(*changes: str) -> tuple[str, ...]:
    return ("search", "plan.toml", "--dry-run", *(word for change in changes for word in ("--set", change)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*AB, "40", "--eval-every", "0"), "eval_every = 0: Input should be greater than or equal to 1"),
        ((*AB, str(10**13)), f"steps = {10**13}: each is 1 to 1,000,000,000,000"),
        ((*AB, "40", "--seeds", str(10**12)), f"seeds = {10**12}: a comparison takes 5 to 16 pairs"),
        (dry("stages.²=1"), "index '²' is not in 0..3"),
        (dry("seeds=" + "9" * 5000), "cannot be read: Exceeds the limit"),
        (dry("x=" + "[" * 3000), "cannot be read: maximum recursion"),
        (dry("a." * 2000 + "b=1"), "has 2000 dots; a plan is at most 50 levels deep"),
        (dry("fixed.fail_marker=\udcff"), r"fixed.fail_marker = '\udcff': is no text that UTF-8 can write"),
        (dry("sampler.seed=4294967296"), "sampler.seed = 4294967296: Input should be less than 4294967296"),
        (dry("num_candidates=1000000000001"), "num_candidates = 1000000000001: Input should be less than or equal"),
        (dry("seeds=[1, 2, 9223372036854775808]"), "seeds.2 = 9223372036854775808: Input should be less than"),
        (dry("sampler.grid_points=1001"), "sampler.grid_points = 1001: Input should be less than or equal to 1000"),
        (("search", "pipe", "--dry-run"), "plan 'pipe': is no regular file"),
        (("ab", "control", "best", "--family", FAMILY, "--dry-run", "--steps", "40"), "export.json"),
        (("families", ":"), "family = ':': cannot be imported (':' is not of the form 'module:attr')"),
        (("families", "broken_module:FAMILY"), "cannot be imported (SyntaxError: invalid syntax"),
        (("preflight", "plan.toml", "--no-trial", "--runs-dir", "plan.toml"), "--runs-dir plan.toml: cannot be made"),
        (("simulate", "plan.toml", "--curves", "/dev/zero"), "/dev/zero: cannot be read as a Parquet file: no regular"),
    ],
)
def test_it_is_refused_in_words(
    place: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(place / "pipe")
    (place / "best").mkdir()
    (place / "best" / "export.json").write_text("{}", encoding="utf-8")
    (place / "broken_module.py").write_text("def (:\n", encoding="utf-8")
    if "best" in words:
        message = "best: is no exported config of this version: schema: Field required"
    assert main(words) == 2
    text = capsys.readouterr().err
    assert message in text
    assert len(text) < 5000


def test_an_error_of_many_long_lines_is_cut(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = fields(control="x" * 9000, stages=[{"until_step": "y" * 9000}] * 300)
    (place / "plan.toml").write_text(tomli_w.dumps(long), encoding="utf-8")
    assert main(dry()) == 2
    text = capsys.readouterr().err
    assert len(text) < 5000
    assert "stages.0.until_step = 'yyy" in text
    assert text.rstrip().endswith("mistakes more")


def test_a_plan_may_begin_with_a_mark_of_its_byte_order(place: Path) -> None:
    content = (place / "plan.toml").read_bytes()
    (place / "plan.toml").write_bytes(b"\xef\xbb\xbf" + content)
    assert main(dry()) == 0


def test_preflight_makes_no_folder(place: Path) -> None:
    assert main(["preflight", "plan.toml", "--no-trial", "--runner", "local"]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["plan.toml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed = -1: Input should be greater"),
        ({"threads": "4"}, "threads = '4': Input should be a valid integer"),
        ({"threads": 10**6}, "threads = 1000000: Input should be less"),
        ({"member": "../x"}, "member = '../x': String should match"),
        ({"weights_sha256": None}, "weights_sha256 = None: Input should be a valid string"),
        ({"schema": 2}, "schema = 2: Input should be 1"),
        ({"family": ["a"]}, r"family = \['a'\]: Input should be a valid string"),
    ],
)
def test_the_index_of_an_export_is_read_field_by_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    index = {
        "schema": 1, "family": FAMILY, "member": "c0001-s7", "seed": 7, "threads": 1, "config_digest": "0" * 64,
        "weights_sha256": "0" * 64,
    }  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps(index | changes), encoding="utf-8")
    with pytest.raises(CheckpointCorrupt, match=f"is no exported config of this version: {message}"):
        exported.read(tmp_path)


def test_a_file_of_fields_is_a_regular_file_that_holds_some(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ValueError, match="is not there"):
        read_fields(path, json.loads)
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no regular file"):
        read_fields(path, json.loads)
    path.unlink()
    for content, message in (("[1]", "holds a list"), ("[" * 100_000, "nested too deeply"), ("{", "Expecting")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_fields(path, json.loads)


def test_values_are_shown_in_a_few_words() -> None:
    assert shown("short") == "'short'"
    assert len(shown("x" * 10**6)) < 260
    assert shown(10**5000) == "(int, too long to show)"
    assert shortened("a" * 300, 200) == f"{'a' * 150} [100 characters left out] {'a' * 50}"
    assert brief("one\ntwo") == "one\ntwo"
    assert brief("\n".join(["x" * 900] * 10)).endswith("... and 7 lines more")


@pytest.mark.parametrize("reference", ["", ":", "a", "a:", ":b", ".a:b", "a..b:c", "a b:c", "a:b.c"])
def test_a_reference_is_a_module_and_a_name(reference: str) -> None:
    with pytest.raises(ImportError, match="is not of the form 'module:attr'"):
        resolve(reference)
