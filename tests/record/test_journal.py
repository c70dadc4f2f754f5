"""The journal: torn, corrupt, locked and full are each dealt with."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.record.test_events import BAD, EVENTS, same
from tune_rh.errors import JournalCorrupt, RunLocked, StorageError
from tune_rh.record import journal as journal_module
from tune_rh.record.events import Event, SpaceExhausted, encode
from tune_rh.record.journal import Chain, Journal, RunPaths, locked, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of all events."""
    made = tmp_path / "journal.jsonl"
    journal = Journal(made)
    for event in EVENTS:
        journal.append(event)
    journal.close()
    return made


def read_all(path: Path, *, repair: bool = False) -> list[Event]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list(read(path, repair=repair))


def test_what_was_appended_is_read_in_order(path: Path) -> None:
    assert [repr(e) for e in read_all(path)] == [repr(e) for e in EVENTS]
    assert read_all(path.with_name("absent")) == []


@pytest.mark.parametrize("cut", [1, 2, 10, None])
def test_a_torn_last_line_is_dropped_with_a_warning_and_repaired(path: Path, cut: int | None) -> None:
    whole = path.read_bytes()
    kept = whole[: whole.rstrip(b"\n").rfind(b"\n") + 1]
    torn = whole[: -cut if cut else len(kept) + 1]
    path.write_bytes(torn)
    lost = len(torn) - len(kept)
    with pytest.warns(UserWarning, match=rf"dropped a torn last line \({lost} bytes\)"):
        assert len(list(read(path))) == len(EVENTS) - 1
    assert path.read_bytes() == torn
    with pytest.warns(UserWarning, match="torn last line"):
        assert len(list(read(path, repair=True))) == len(EVENTS) - 1
    assert path.read_bytes() == kept
    assert len(read_all(path)) == len(EVENTS) - 1
    journal = Journal(path)
    journal.append(EVENTS[-1])
    journal.close()
    assert path.read_bytes() == whole


def test_zeros_after_a_power_cut_are_a_torn_line(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 100)
    with pytest.warns(UserWarning, match="torn last line"):
        assert len(list(read(path, repair=True))) == len(EVENTS)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("bad", [line.encode() for line in BAD] + [b"\xff\xfe"])
@pytest.mark.parametrize("number", [1, 6, len(EVENTS) - 1])
def test_a_bad_line_in_the_middle_is_refused_by_number(path: Path, bad: bytes, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = bad + b"\n"
    path.write_bytes(b"".join(lines))
    before = path.read_bytes()
    with pytest.raises(JournalCorrupt, match=f"line {number} of {len(EVENTS)}: "):
        read_all(path, repair=True)
    assert path.read_bytes() == before


def changed(lines: list[bytes], how: str, number: int) -> list[bytes]:
    """The lines of a journal with one mistake at line ``number``."""
    before, line, after = lines[: number - 1], lines[number - 1], lines[number:]
    match how:
        case "removed":
            return [*before, *after]
        case "repeated":
            return [*before, line, line, *after]
        case "moved":
            return [*before, after[0], line, *after[1:]]
        case "from another run":
            chain = Chain()
            others = [chain.seal(encode(SpaceExhausted(draws))) for draws in range(number)]
            return [*before, others[-1], *after]
        case _:
            return [*before, line.replace(b'"checksum":', b'"nothing":'), *after]


@pytest.mark.parametrize(
    ("how", "at"), [("removed", 0), ("repeated", 1), ("moved", 0), ("from another run", 0), ("unsealed", 0)]
)
@pytest.mark.parametrize("number", [1, 2, 9, len(EVENTS) - 1])
def test_a_line_that_does_not_follow_is_refused_by_number(path: Path, how: str, at: int, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    mistaken = changed(lines, how, number)
    path.write_bytes(b"".join(mistaken))
    if how == "from another run" and number == 1:
        at = 1  # the first line of another run is sound; what comes after it does not fit
    with pytest.raises(JournalCorrupt, match=f"journal\\.jsonl, line {number + at} of {len(mistaken)}: "):
        read_all(path, repair=True)
    assert path.read_bytes() == b"".join(mistaken)


def test_no_changed_bit_goes_unnoticed(path: Path) -> None:
    whole = path.read_bytes()
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        number = whole[:position].count(b"\n") + 1
        # Only the very last newline may pass for a write that was cut off.
        noticed = JournalCorrupt if position < len(whole) - 1 else UserWarning
        with pytest.raises(noticed, match=f"line {number} of" if noticed is JournalCorrupt else "torn last line"):
            read_all(path)


def test_the_last_line_is_no_exception_where_it_is_whole(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"at_s":4.5', b'"at_s":4.6'))
    with pytest.raises(JournalCorrupt, match=f"line {len(EVENTS)} of {len(EVENTS)}: does not fit its checksum"):
        read_all(path, repair=True)


def test_a_second_writer_is_noticed_before_it_does_damage(path: Path) -> None:
    """As on a file system without locks."""
    first, second = Journal(path), Journal(path)
    first.append(SpaceExhausted(1))
    with pytest.raises(RunLocked, match=r"journal\.jsonl: another process is writing it"):
        second.append(SpaceExhausted(2))
    first.append(SpaceExhausted(3))
    assert [repr(event) for event in read_all(path)[-2:]] == [repr(SpaceExhausted(1)), repr(SpaceExhausted(3))]


def test_nothing_is_written_behind_a_half_line_that_cannot_be_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", fail)
        patch.setattr(journal_module.os, "ftruncate", fail)
        for _ in range(2):
            with pytest.raises(StorageError, match="input/output error"):
                journal.append(SpaceExhausted(1))
    assert len(path.read_bytes().splitlines()) == len(EVENTS) + 1
    journal.append(SpaceExhausted(2))
    assert repr(read_all(path)[len(EVENTS) :]) == repr([SpaceExhausted(2)])


HOLDER = """
import sys
from pathlib import Path
from tune_rh.record.journal import RunPaths, locked
with locked(RunPaths(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_writer_at_a_time_and_a_kill_releases(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        with pytest.raises(RunLocked, match=f'another process is writing this run .*"pid": {process.pid},'):
            locked(RunPaths(tmp_path)).__enter__()
        process.kill()
        process.wait()
    with locked(RunPaths(tmp_path)):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_lock_let_go_in_good_order_can_be_taken_again(tmp_path: Path) -> None:
    with locked(RunPaths(tmp_path)), pytest.raises(RunLocked), locked(RunPaths(tmp_path)):
        pass
    with locked(RunPaths(tmp_path)), hold_refused(tmp_path):
        pass
    with hold(tmp_path) as process:
        process.communicate("\n")
        assert process.returncode == 0


class hold_refused:
    """Another process cannot take the lock."""

    def __init__(self, root: Path) -> None:
        done = subprocess.run([sys.executable, "-c", HOLDER, str(root)], capture_output=True, text=True)
        assert done.returncode != 0
        assert f'"pid": {os.getpid()},' in done.stderr

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_limit_reached_inside_a_line_leaves_no_half_line(path: Path) -> None:
    """For real: the kernel writes half of the line, then refuses (EFBIG, as with a quota on file size)."""
    code = (
        "import resource, sys; from pathlib import Path; from tune_rh.record.events import SpaceExhausted\n"
        "from tune_rh.record.journal import Journal\n"
        "path = Path(sys.argv[1]); size = path.stat().st_size\n"
        "journal = Journal(path)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))\n"
        "for _ in range(2):\n"
        "    try: journal.append(SpaceExhausted(1))\n"
        "    except Exception as error: print(type(error).__name__, path.stat().st_size == size)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "journal.append(SpaceExhausted(2))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "StorageError True\nStorageError True\n"
    assert [repr(e) for e in read_all(path)] == [repr(e) for e in [*EVENTS, SpaceExhausted(2)]]


class FullFile(io.FileIO):
    """Takes ``room`` bytes, then the disk is full."""

    room = 0

    def write(self, data: Any) -> int:
        taken = bytes(data)[: self.room]
        self.room -= len(taken)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(taken)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_full_disk_is_said_and_the_journal_works_again_afterwards(path: Path, room: int) -> None:
    before = path.read_bytes()
    journal = Journal(path)
    journal._file.close()
    full = FullFile(path, "ab")
    full.room = room
    journal._file = full
    with pytest.raises(StorageError, match=r"journal\.jsonl: the disk is full; nothing that was written before"):
        journal.append(SpaceExhausted(1))
    assert path.read_bytes() == before
    full.room = 1000
    journal.append(SpaceExhausted(2))
    journal.close()
    assert same(read_all(path)[-1], SpaceExhausted(2))
    assert len(read_all(path)) == len(EVENTS) + 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE])
def test_a_line_that_did_not_reach_the_disk_is_taken_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = path.read_bytes()
    journal = Journal(path)

    def fsync(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", fsync)
        with pytest.raises(StorageError, match=r"journal\.jsonl: .*; nothing that was written before is lost\."):
            journal.append(SpaceExhausted(1))
    assert path.read_bytes() == before
    journal.append(SpaceExhausted(1))
    journal.close()
    assert len(read_all(path)) == len(EVENTS) + 1


def test_every_file_of_a_run_lies_inside_its_folder(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    found = [file for name, file in vars(paths).items() if name != "root"] + [paths.member("c0001-s7")]
    assert len(set(found)) == len(found)
    assert all(tmp_path in file.parents for file in found)
