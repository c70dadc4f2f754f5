"""What a command does where a disk, a locale, a terminal or a reader is not as usual: a sentence, never a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from rich.console import Console

from tests.worlds.plans import fields
from tune_rh.cli.main import main
from tune_rh.cli.terminal import Terminal
from tune_rh.plan.file import load_plan
from tune_rh.run.execute import Place, launch
from tune_rh.run.signals import clean_stop

pytestmark = pytest.mark.usefixtures("no_drawing")

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plan in it."""
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields(num_candidates=3)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_that_cannot_be_written_to_is_said_without_a_traceback(
    place: Path, copy_run: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    copy_run(place / "runs")
    (place / "file").touch()
    for words in (["export", "scripted", "--out", "file/best"], ["report", "scripted", "--out", "file/page.html"]):
        capsys.readouterr()
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "file" in error
        assert len(error.splitlines()) == 1


def test_a_torn_journal_is_told_in_one_line(
    place: Path, copy_run: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with (copy_run(place / "runs") / "journal.jsonl").open("a") as journal:
        journal.write('{"event": "Rep')
    capsys.readouterr()
    assert main(["status", "scripted"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("tune-rh: warning: ")
    assert "torn last line" in error
    assert len(error.splitlines()) == 1


def test_a_log_that_cannot_spell_every_sign_gets_the_tables_all_the_same(
    place: Path, copy_run: Callable[[Path], Path]
) -> None:
    copy_run(place / "runs")
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "tune_rh", "resume", "scripted", "--runner", "local"]
    done = subprocess.run(command, cwd=place, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert b"mean ? std" in done.stdout


def test_a_search_whose_log_has_no_reader_stops_cleanly(place: Path) -> None:
    search = f"{sys.executable} -m tune_rh search plan.toml --runner local"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {search} | head -n 2"],
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "")
    journal = (place / "runs" / "scripted" / "journal.jsonl").read_text().splitlines()
    assert json.loads(journal[-1])["reason"] == "interrupted"
    assert main(["resume", "scripted", "--runner", "local"]) == 0


@pytest.mark.skipif(not FULL.exists(), reason="no device here is always full")
def test_a_search_goes_on_where_its_log_is_full(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with FULL.open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["search", "plan.toml", "--runner", "local"]) == 0
    warning = "tune-rh: warning: some of the output is lost (No space left on device)"
    assert capfd.readouterr().err.splitlines().count(warning) == 1
    assert (place / "runs" / "scripted" / "best" / "export.json").exists()


@pytest.mark.skipif(not FULL.exists(), reason="no device here is always full")
def test_an_answer_that_cannot_be_written_is_an_error(
    place: Path, copy_run: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    copy_run(place / "runs")
    with FULL.open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["status", "scripted"]) == 5
    assert "tune-rh: No space left on device" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("tune_rh.cli.tables.ranking_table", "the result"),
        ("tune_rh.cli.conclude.run_baselines", "the comparison with baselines"),
        ("tune_rh.cli.conclude.write", "the report"),
    ],
)
def test_what_cannot_be_told_at_the_end_is_named_and_the_rest_is_there(
    place: Path,
    copy_run: Callable[[Path], Path],
    broken: str,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = copy_run(place / "runs")
    monkeypatch.setattr(broken, fail)
    assert main(["resume", "scripted", "--runner", "local"]) == 0
    out = capsys.readouterr().out
    assert (
        f"warning: {what} cannot be made (ValueError: of a library); `tune-rh report {root.name}` makes it later" in out
    )
    assert "Exported to " in out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_cannot_be_shown_does_not_end_a_search(
    place: Path, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_rh.cli.tables.progress", fail)
    monkeypatch.setattr("tune_rh.results.lines.line", fail)
    to = Console(file=io.StringIO(), force_terminal=is_terminal, highlight=False, width=140)
    plan, here = load_plan(place / "plan.toml", []), Place(place, "local")
    _, outcome = launch(plan, place / "runs", here, Terminal(to), lambda *_: None)
    assert outcome.ending == "finished"
    assert "warning: this cannot be shown (ValueError: of a library)" in to.file.getvalue()  # type: ignore[attr-defined]


def fail(*_: object, **__: object) -> None:
    raise ValueError("of a library\nwith a second line")


def test_watching_ends_with_the_run_or_with_ctrl_c(
    place: Path, copy_run: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(seconds: float) -> None:
        raise KeyboardInterrupt

    journal = copy_run(place / "runs") / "journal.jsonl"
    assert main(["status", "scripted", "--watch"]) == 0
    assert capsys.readouterr().out.startswith("scripted: finished\n")
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:9]))
    monkeypatch.setattr(time, "sleep", press)
    assert main(["status", "scripted", "--watch"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith("scripted: stopped: ")
    assert error == ""


def test_nohup_is_heard() -> None:
    """Whoever has SIGHUP ignored when a search starts goes on after the terminal is gone."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with clean_stop(None, Terminal(Console()).say):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with clean_stop(None, Terminal(Console()).say):
            assert callable(signal.getsignal(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
