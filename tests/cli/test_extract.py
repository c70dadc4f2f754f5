"""`tune-rh extract` as a user meets it: of a run and of an export, what the page shows of it, what is refused."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.extraction import EXTRACT, Extracted, Listing, NoFormula, Row, kept, to_json
from tests.analysis.test_extraction import WHOLE
from tests.cli.conftest import Shell
from tests.test_escaped import MARKUP
from tests.worlds.plans import plan
from tests.worlds.records import SMALL, finish
from tests.worlds.records import make as make_scripted
from tune_rh.cli.main import main
from tune_rh.results.export import export
from tune_rh.run import runs

pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, first100k_dir: Path) -> Path:
    """A finished run ``done``, hardly trained, what was exported of it, the data, and a run ``empty``."""
    root = tmp_path_factory.mktemp("extract")
    (root / "spacing_mdn").symlink_to(first100k_dir / "spacing_mdn")
    plain = {"ar_bank": 0, "prime_lines": 0}
    searched: dict[str, Any] = {
        "family": "spacing_mdn",
        "space": "",
        "control": "plain",
        "presets": ["quick"],
        "configs": {
            "plain": {"preset": "tiny-mlp", "fields": plain},
            "quick": {"preset": "tiny-mlp", "fields": plain | {"lr": 0.01}},
        },
        "num_candidates": 1,
        "seeds": [7],
        "eval_every": 2,
        "stages": [{"until_step": 2, "num_seeds": 1}],
        "diagnose": [],
    }
    paths = runs.create(plan(**searched), root / "done", root)
    export(paths, finish(paths), root / "exported")
    runs.create(plan(**searched), root / "empty", root)
    return root


def read(folder: Path) -> Extracted:
    found = kept(folder)
    assert found is not None
    return found


def test_of_a_run_and_of_its_export_alike(shell: Shell, folder: Path) -> None:
    code, out, _ = shell("extract", "done")
    assert code == 0
    of_run = read(folder / "done" / "report")
    assert of_run.member == "c0001-s7"
    assert f"c0001-s7: {of_run.extraction.formula}" in out
    assert all(sentence in out for sentence in of_run.extraction.says)
    assert f"Written: {folder / 'done' / 'report' / EXTRACT}" in out
    assert shell("extract", str(folder / "exported"))[0] == 0
    assert read(folder / "exported") == of_run
    assert shell("report", "done")[0] == 0
    page = (folder / "done" / "report" / "index.html").read_text()
    assert "What it has learnt" in page
    assert "shares of the variance" in page.lower()
    assert of_run.extraction.formula in (folder / "done" / "report" / "report.md").read_text()


def test_a_page_says_when_another_is_the_best_and_when_a_file_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    paths = make_scripted(tmp_path / "run", **SMALL)
    finish(paths)
    page = ["report", "run", "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]
    assert main(page) == 0
    assert "What it has learnt" not in (paths.report / "index.html").read_text()
    (paths.report / EXTRACT).write_text(to_json(WHOLE))
    assert main(page) == 0
    text = (paths.report / "report.md").read_text()
    assert "## What it has learnt" in text
    assert "`mean = 1 + 0.5 x1`" in text
    assert "`tune-rh extract run` looks at it" in text
    hostile = Listing(f"{MARKUP}.", (MARKUP, "n"), (Row((MARKUP,), (1.5,)),))
    told = replace(WHOLE.extraction, says=(MARKUP,), formula="`<b>`", tables=(hostile,), plots=())
    (paths.report / EXTRACT).write_text(to_json(replace(WHOLE, extraction=told)))
    assert main(page) == 0
    for name in ("index.html", "report.md"):
        text = (paths.report / name).read_text()
        section = text[text.index("What it has learnt") :]
        assert "alert(1)" in section
        assert "<b>`" not in section.replace("`'<b>'`", "")
        assert not re.search(r"(?<!\\)<script>alert|[\x1b\x07\u202e]", section)
    (paths.report / EXTRACT).write_text("{")
    assert main(page) == 0
    assert f"report/{EXTRACT}: passed over" in (paths.report / "report.md").read_text()
    capsys.readouterr()


def test_in_a_read_only_copy_it_is_shown(shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("trainables.files.write_atomic", refuse)
    code, out, _ = shell("extract", "done", "--candidate", "c0000")
    assert code == 0
    assert "mean = " in out
    assert f"{EXTRACT}: not written (Read-only file system)" in out


def test_what_is_wrong_is_named(shell: Shell, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    torn = shutil.copytree(folder / "exported", tmp_path / "torn", ignore=shutil.ignore_patterns(EXTRACT))
    (torn / "model.safetensors").unlink()
    scripted = make_scripted(tmp_path / "scripted", **SMALL)
    for words, code, said in (
        (("nowhere",), 5, "run 'nowhere': not found"),
        (("empty",), 2, "no candidate has finished the last stage yet"),
        (("done", "--candidate", "c0009"), 2, "--candidate c0009: has not finished the last stage"),
        (("done", "--device", "abacus"), 2, "--device abacus: torch cannot use it here"),
        ((str(scripted.root),), 2, "offers no extraction; those that do: spacing_mdn"),
        ((str(torn),), 2, "model.safetensors: is not there"),
        ((str(folder / "exported"), "--candidate", "c0000"), 2, "--candidate: is of a run"),
    ):
        found, _, err = shell("extract", *words)
        assert (found, said in err) == (code, True), (words, err)
    assert not (torn / EXTRACT).exists()


def test_a_model_that_gives_nothing_to_fit_is_named(
    shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(subject: Any) -> None:
        raise NoFormula("val: 3 predictions")

    monkeypatch.setattr("analysis.spacing_mdn.extraction.extract", refuse)
    code, _, err = shell("extract", str(folder / "exported"))
    assert (code, "c0001-s7: nothing to extract: val: 3 predictions" in err) == (2, True)


def test_data_of_another_version_is_refused(shell: Shell, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder / "exported", tmp_path / "copy")
    facts = json.loads((copy / "provenance.json").read_text())
    facts["data"]["sha256"] = "0" * 64
    (copy / "provenance.json").write_text(json.dumps(facts))
    code, _, err = shell("extract", str(copy))
    assert (code, "first100k there is another version than c0001-s7 was trained on" in err) == (5, True)
