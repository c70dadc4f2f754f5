"""The folder of a run: made whole or not at all, cleared of what was left half-made, and never ahead of its journal."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import journals
from tests.worlds.records import SMALL, NoMirror, decided, events, finish, make, of
from trainables.files import make_folder, remove_folder, replacing, sweep, write_atomic
from tune_rh.errors import RunExists, StorageError
from tune_rh.record.events import CandidateAdded, Evaluated
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)


# --- made whole or not at all ----------------------------------------------------------------------------------------

CALLS = ("os.mkdir", "os.rename", "os.replace", "os.fsync")


class Stop(BaseException):
    """Stands for kill -9: nothing of the code under test catches it."""


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int, error: Callable[[], BaseException]) -> list[str]:
    """Raise at the call of that number to the file system (counted from 0); the calls so far."""
    made: list[str] = []

    def wrap(name: str) -> None:
        real = getattr(os, name.removeprefix("os."))

        def call(*given: Any, **more: Any) -> Any:
            made.append(name)
            if len(made) == number + 1:
                raise error()
            return real(*given, **more)

        monkeypatch.setattr(name, call)

    for name in CALLS:
        wrap(name)
    return made


def test_whenever_making_a_run_is_cut_short_it_can_be_made_again(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupt(patch, -1, Stop)
        expected = events(make(tmp_path / "whole" / "run", **SMALL))
    assert {"os.mkdir", "os.rename", "os.fsync"} <= set(calls)
    for number in range(len(calls)):
        root = tmp_path / f"cut-{number}" / "run"
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, number, Stop)
            # As kill -9 does, leave everything as it is.
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            with pytest.raises(Stop):
                make(root, **SMALL)
        paths = RunPaths(root)
        if not root.exists():
            paths = make(root, **SMALL)
        assert events(paths) == expected, calls[number]
        assert sorted(path.name for path in root.iterdir()) == [
            "journal.jsonl", "members", "plan.toml", "provenance.json", "ray",
        ]  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_run_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        calls = interrupt(patch, -1, Stop)
        make(tmp_path / "whole" / "run", **SMALL)
    for at in range(1, len(calls)):
        root = tmp_path / "runs" / "run"
        root.parent.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, at, lambda: OSError(number, os.strerror(number)))
            with suppress(StorageError):
                make(root, **SMALL)
        if root.exists():  # whole: what failed came after it was there
            assert len(events(RunPaths(root))) == 1
            shutil.rmtree(root)
        assert list(root.parent.iterdir()) == []


def leftover(root: Path, *files: str) -> Path:
    root.mkdir(parents=True)
    for name in files:
        (root / name).write_text("x")
    return root


@pytest.mark.parametrize(
    "files", [(), ("journal.jsonl",), ("plan.toml", "provenance.json"), ("plan.toml", "journal.jsonl", "lock")]
)
def test_a_folder_in_which_nothing_began_is_taken_over(tmp_path: Path, files: tuple[str, ...]) -> None:
    root = leftover(tmp_path / "run", *files)
    (root / "members").mkdir()
    finish(make(root, **SMALL))
    assert {path.name for path in root.iterdir()} >= {"journal.jsonl", "plan.toml"}


def has_notes(root: Path) -> None:
    leftover(root, "notes.txt")


def has_a_member(root: Path) -> None:
    (root / "members" / "c0000-s7").mkdir(parents=True)


def is_a_file(root: Path) -> None:
    root.write_text("x", encoding="utf-8")


def is_a_link(root: Path) -> None:
    root.symlink_to(leftover(root.with_name("elsewhere")))


@pytest.mark.parametrize("there", [has_notes, has_a_member, is_a_file, is_a_link])
def test_what_is_no_such_folder_is_left_alone(tmp_path: Path, there: Callable[[Path], None]) -> None:
    there(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunExists, match=r"run.* --name"):
        make(tmp_path / "run", **SMALL)
    assert sorted(tmp_path.rglob("*")) == before


def test_of_two_that_make_one_run_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, outcomes = threading.Barrier(2), []
    fill = runs._fill

    def together(*given: Any) -> None:
        fill(*given)
        gate.wait()

    monkeypatch.setattr(runs, "_fill", together)

    def start() -> None:
        try:
            outcomes.append(make(tmp_path / "run", **SMALL).root.name)
        except RunExists as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["RunExists", "run"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# --- what killed processes leave -------------------------------------------------------------------------------------


def test_what_was_left_half_made_is_cleared(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", **SMALL)
    finish(paths)
    kept = {path for path in tmp_path.rglob("*") if not path.name.startswith(".")}
    some = next(paths.members.glob("*/checkpoints"))
    hidden = f".{{}}.{'0' * 32}.tmp"
    for folder in (paths.root, paths.report, some, some.parent):
        folder.mkdir(exist_ok=True)
        (folder / hidden.format("file")).write_text("x")
        (folder / hidden.format("link")).symlink_to("nowhere")
        (folder / hidden.format("folder") / "deep").mkdir(parents=True)
        (folder / ".mine.tmp").write_text("of somebody else")
    runs.clear_strays(paths)
    left = {path for path in tmp_path.rglob("*") if path not in kept and path != paths.report}
    assert {path.name for path in left} == {".mine.tmp"}


def test_a_file_that_is_being_written_is_not_cleared(tmp_path: Path) -> None:
    with replacing(tmp_path / "page.html") as file:
        file.write(b"x")
        sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(leftover(tmp_path / "old", "one") / "two", "x")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            remove_folder(tmp_path / "old")
    assert not (tmp_path / "old").exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_new_folders_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    make_folder(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    paths = make(tmp_path / "a" / "run", **SMALL)
    (made,) = {Path(name).name for name in synced if name.endswith(".tmp") and Path(name).parent == paths.root.parent}
    within = str(paths.root.parent / made)
    # The files, the names of them, and only after the rename the name of the folder itself.
    assert set(synced) >= {f"{within}/{name}" for name in ("plan.toml", "journal.jsonl", "provenance.json", "members")}
    assert synced.index(within) < len(synced) - 1
    assert synced[-2:] == [within, str(paths.root.parent)]


# --- a journal that is behind ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A search that nothing disturbed."""
    paths = make(tmp_path_factory.mktemp("whole") / "run", **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
        finish(paths)
    return paths


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_journal_that_lost_its_last_lines_is_noticed_and_the_result_is_the_same(
    tmp_path: Path, whole: RunPaths, share: float
) -> None:
    paths = RunPaths(shutil.copytree(whole.root, tmp_path / "run", symlinks=True))
    texts = journals.texts(paths.journal)
    journals.write(paths.journal, texts[: int(share * len(texts))])
    with pytest.warns(UserWarning, match=r"journal\.jsonl: is behind the checkpoints of \d+ members"):
        finish(paths)
    assert decided(paths) == decided(whole)


def test_where_another_search_followed_its_members_begin_anew(tmp_path: Path, whole: RunPaths) -> None:
    """With several slots what follows a lost line need not be what followed it before."""
    paths = RunPaths(shutil.copytree(whole.root, tmp_path / "run", symlinks=True))
    texts = journals.texts(paths.journal)
    first = next(i for i, text in enumerate(texts) if '"origin":"sampler"' in text)
    journals.write(paths.journal, texts[:first])
    drawn = of(whole, CandidateAdded)[-1].candidate
    for folder in paths.members.glob(f"{drawn}-*/checkpoints"):
        shutil.rmtree(folder)
        shutil.copytree(whole.member("c0000-s7") / "checkpoints", folder, symlinks=True)  # of another config
    with pytest.warns(UserWarning, match="is behind the checkpoints"):
        finish(paths)
    assert decided(paths) == decided(whole)


def test_one_report_that_was_saved_and_not_heard_is_no_loss(tmp_path: Path, whole: RunPaths) -> None:
    paths = RunPaths(shutil.copytree(whole.root, tmp_path / "run", symlinks=True))
    texts = journals.texts(paths.journal)
    at = max(i for i, event in enumerate(events(whole)) if isinstance(event, Evaluated))
    journals.write(paths.journal, texts[:at])
    finish(paths)  # a warning would be an error
    assert decided(paths) == decided(whole)
