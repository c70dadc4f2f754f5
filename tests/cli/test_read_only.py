"""Looking at a run writes nothing into it, so that a read-only copy can be looked at."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import tune_rh
from tune_rh.cli.main import main

pytestmark = pytest.mark.usefixtures("no_drawing")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Every entry below a folder, with what a write would change."""
    return {
        str(path.relative_to(folder)): ((found := path.lstat()).st_mtime_ns, found.st_size)
        for path in (folder, *folder.rglob("*"))
    }


LOOKS: dict[str, Callable[[Path, Path], object]] = {
    "status": lambda run, out: main(["status", str(run)]),
    "report": lambda run, out: main(["report", str(run), "--out", str(out / "page.html")]),
    "export": lambda run, out: main(["export", str(run), "--out", str(out / "best")]),
    "ab": lambda run, out: main(["ab", f"{run}/c0000", f"{run}/c0001", "--steps", "20", "--dry-run"]),
    "load": lambda run, out: tune_rh.load(run).members.empty,
}


@pytest.mark.parametrize("look", LOOKS)
def test_looking_writes_nothing(
    look: str, tmp_path: Path, copy_run: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = copy_run(tmp_path / "runs")
    before = state(run)
    assert not LOOKS[look](run, tmp_path)
    assert state(run) == before


def test_a_report_that_has_no_place_names_the_option(
    tmp_path: Path,
    copy_run: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    run = copy_run(tmp_path / "runs")
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["report", str(run)]) == 5
    assert f"{run / 'report'}: cannot be written (Read-only file system); --out FILE" in capsys.readouterr().err
