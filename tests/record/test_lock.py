"""The lock of a run where a file system has none, where its disk is full, and where others only look."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.records import SMALL, NoMirror, decided, finish, make
from tune_rh.record import journal as journal_module
from tune_rh.record.journal import RunPaths, is_locked, locked
from tune_rh.run.execute import Place, execute


def refuse(number: int) -> Any:
    def lock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return lock


def test_looking_never_refuses_a_writer(tmp_path: Path) -> None:
    paths, done = RunPaths(tmp_path), threading.Event()
    with locked(paths):
        assert is_locked(paths)

    def look() -> None:
        while not done.is_set():
            is_locked(paths)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(500):
            with locked(paths):
                pass
    finally:
        done.set()
        for looker in lookers:
            looker.join()
    assert not is_locked(paths)


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    assert not is_locked(RunPaths(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    whole, paths = make(tmp_path / "whole", **SMALL), make(tmp_path / "run", **SMALL)
    finish(whole)
    monkeypatch.setattr(journal_module, "_take_lock", refuse(number))
    monkeypatch.setattr(journal_module, "_is_lock_held", refuse(number))
    said: list[str] = []

    class Audience:
        say = said.append

        def follow(self, *_: object) -> Any:
            return runs_nothing()

    with pytest.warns(UserWarning, match="run: this file system has no locks .*: start one at a time") as caught:
        execute(paths, Place(tmp_path, "local"), Audience(), lambda *_: None)  # type: ignore[arg-type]
    assert len(caught) == 1
    assert decided(paths) == decided(whole)
    assert not is_locked(paths)


class runs_nothing:
    """Follows a session and does nothing."""

    def __enter__(self) -> Any:
        return lambda _event: None

    def __exit__(self, *_: object) -> None: ...


def test_an_error_of_the_disk_is_not_taken_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_take_lock", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        locked(RunPaths(tmp_path)).__enter__()


def test_a_full_disk_does_not_cost_the_lock(tmp_path: Path) -> None:
    """Who holds it cannot be written down; the lock is held all the same."""
    (tmp_path / "lock").symlink_to("/dev/full")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with locked(RunPaths(tmp_path)):
            pass
