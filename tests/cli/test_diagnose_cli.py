"""`tune-rh diagnose` and `tune-rh report` as a user meets them: what they take, what they say, how they end."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.diagnose.findings import from_json
from tests.cli.conftest import Shell
from tests.worlds.checkpoints import rewrite
from tests.worlds.plans import plan
from tests.worlds.records import SMALL, finish, open_search
from tests.worlds.records import make as make_scripted
from tune_rh.cli.main import main
from tune_rh.record.journal import RunPaths
from tune_rh.results.export import export
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner

pytestmark = pytest.mark.usefixtures("no_drawing")

MEMBER = "c0000-s7"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, first100k_dir: Path) -> Path:
    """Runs ``done`` (finished, diagnosed by nobody) and ``empty``, the data, and what was exported."""
    root = tmp_path_factory.mktemp("cli")
    (root / "spacing_mdn").symlink_to(first100k_dir / "spacing_mdn")
    fixed = {"data": "first100k", "width": 8, "n_heads": 2, "batch_size": 4, "context": 64, "eval_stride": 512}
    searched = plan(
        family="spacing_mdn",
        space="cpu-quickstart",
        control="tiny",
        presets=["cpu-e0"],
        num_candidates=1,
        fixed=fixed,
        seeds=[7, 42],
        eval_every=2,
        stages=[{"until_step": 2, "num_seeds": 2}],
        diagnose=[],
    )
    paths = runs.create(searched, root / "done", root)
    export(paths, finish(paths), root / "exported")
    return root


def checkpoint(folder: Path) -> Path:
    return (folder / "done" / "members" / MEMBER / "checkpoints" / "best").resolve()


def test_in_a_read_only_copy_findings_are_shown(shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("trainables.files.write_atomic", refuse)
    code, out, _ = shell("diagnose", "done", "--member", MEMBER)
    assert code == 0
    assert "slot_norms" in out
    assert "findings.json: not written (Read-only file system)" in out
    assert not list((folder / "done").glob("members/*/findings.json"))


def test_only_is_shown_and_not_kept(shell: Shell, folder: Path) -> None:
    code, out, _ = shell("diagnose", "done", "--only", "slot_norms")
    assert code == 0
    assert "c0000-s7" in out
    assert "c0000-s42" in out
    assert not list((folder / "done").glob("members/*/findings.json"))


def test_all_of_one_member_are_kept_where_reports_read_them(shell: Shell, folder: Path) -> None:
    code, out, _ = shell("diagnose", "done", "--member", MEMBER)
    assert code == 0
    assert "c0000-s42" not in out
    (path,) = (folder / "done").glob("members/*/findings.json")
    assert path.parent.name == MEMBER
    assert len(from_json(path.read_text())) == 17
    path.unlink()


def test_an_export_and_a_checkpoint_outside_any_run(shell: Shell, folder: Path, tmp_path: Path) -> None:
    code, out, _ = shell("diagnose", str(folder / "exported"), "--only", "slot_norms")
    assert (code, "c000" in out) == (0, True)
    lone = shutil.copytree(checkpoint(folder), tmp_path / "lone")
    code, out, _ = shell("diagnose", str(lone), "--config", "done/c0000", "--seed", "7", "--only", "slot_norms")
    assert (code, MEMBER in out) == (0, True)
    assert not list(tmp_path.rglob("findings.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("done", "--only", "permutaton"),
            "--only: diagnostic = 'permutaton': spacing_mdn has no such diagnostic; known: slot_a",
        ),
        (("done", "--device", "abacus"), "--device abacus: torch cannot use it here"),
        (("done", "--member", "c0009-s1"), "--member c0009-s1: is not in this run; it has c0000-s7, c0000-s42"),
    ],
)
def test_wrong_names_are_said_with_those_there_are(shell: Shell, words: tuple[str, ...], said: str) -> None:
    code, _, err = shell("diagnose", *words)
    assert code == 2
    assert said in err


def test_a_checkpoint_of_another_config_family_or_schema_is_refused(shell: Shell, folder: Path, tmp_path: Path) -> None:
    lone = shutil.copytree(checkpoint(folder), tmp_path / "lone")
    code, _, err = shell("diagnose", str(lone), "--config", "cpu-e0")
    assert (code, str(lone) in err) == (2, True)
    (index,) = [p for p in lone.glob("*.json") if "schema" in json.loads(p.read_text())]
    facts: dict[str, Any] = json.loads(index.read_text())
    for changes, expected in (({"family": "other"}, "is of family 'other'"), ({"schema": 99}, "schema 99")):
        rewrite(lone, **{**facts, **changes})
        code, _, err = shell("diagnose", str(lone), "--config", "done/c0000")
        assert (code, expected in err) == (2, True), err
    code, _, err = shell("diagnose", str(tmp_path / "nowhere"), "--config", "cpu-e0")
    assert (code, "nowhere" in err) == (2, True)


def test_no_such_run_is_a_run_error(shell: Shell) -> None:
    code, _, err = shell("diagnose", "nowhere")
    assert (code, "run 'nowhere': not found" in err) == (5, True)


def begun(paths: RunPaths) -> None:
    run, search = open_search(paths)
    count = 0

    def watch(_event: object) -> None:
        nonlocal count
        count += 1
        if count == 9:
            search.request_stop()

    search.listeners.append(watch)
    LocalRunner(run).run(search)
    search.close("interrupted")


@pytest.mark.parametrize("state", ["finished", "interrupted", "empty"])
def test_a_report_of_a_run_in_any_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)  # nothing here depends on the disk
    paths = make_scripted(tmp_path / "run", **SMALL)
    if state != "empty":
        (finish if state == "finished" else begun)(paths)
    before = paths.journal.read_bytes()
    assert main(["report", "run", "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("Report: ")
    page = (paths.report / "index.html").read_text()
    assert "<html" in page
    assert (paths.report / "report.md").stat().st_size
    assert paths.journal.read_bytes() == before
    assert main(["report", "nowhere", "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]) == 5
    if state == "empty":
        assert main(["diagnose", "run", "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]) == 2
        assert "no member has reached the last stage yet; --member ID" in " ".join(capsys.readouterr().err.split())
