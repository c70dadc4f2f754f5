"""One run on disk: the only place that knows file names, and the only writer of the journal.

The journal is append-only; each line is flushed to the disk before anything acts on it. Reading drops a torn last
line with a warning (a process died while writing it, or is writing it) and refuses a bad line anywhere else.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tune_rh.errors import JournalCorrupt, RunLocked, storage_full
from tune_rh.record.events import KINDS, Event, MemberId, decode, encode

JOURNAL_SCHEMA = 3


class RunPaths:
    """Every file and folder of a run, from its root ``runs/<name>``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / "plan.toml"  # as it was resolved
        self.provenance = root / "provenance.json"  # what code, libraries, data and machine the run began with
        self.journal = root / "journal.jsonl"  # the append-only record
        self.study = root / "study.db"  # of Optuna; made again from the journal if it is lost
        self.lock = root / "lock"  # held by the one process that writes the run
        self.stop_request = root / "stop-requested"  # workers that see it hand their member back at the next step
        self.ray = root / "ray"  # Ray Tune's own files
        self.best = root / "best"  # the exported best candidate
        self.tensorboard = root / "tensorboard"
        self.report = root / "report"  # text, figures, tables

    def member(self, member: MemberId | str) -> Path:
        """The folder of one member (`trainables.worker.folder` writes it)."""
        return self.root / "members" / str(member)


class Journal:
    """Appends events, one fsynced line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered, so that a failed write leaves nothing behind that a later one would flush.
        self._file = path.open("ab", buffering=0)

    def append(self, event: Event) -> None:
        """Write ``event`` so that it survives a power cut; raises `StorageFull` and leaves no half line behind."""
        line = encode(event).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        with storage_full(self._path, "resume the run"):
            try:
                written = self._file.write(line)
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError:
                os.truncate(self._path, size)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path, *, repair: bool = False, tolerant: bool = False) -> Iterator[Event]:
    """Yield the events of a journal in order; a torn last line is dropped with a warning.

    Args:
        path: the journal; a missing file has no events.
        repair: cut a torn last line off the file (only the process that holds the lock may).
        tolerant: pass over kinds of events that are not known here, with one warning; for those who only look.

    Raises:
        JournalCorrupt: a line before the last cannot be read.
    """
    if not path.exists():
        return
    position = 0
    unknown: set[str] = set()
    with path.open("rb") as file:
        lines = file.readlines()
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no newline at its end")
            event = decode(line)
        except ValueError as error:
            if tolerant and (kind := _unknown_kind(line)):
                unknown.add(kind)
                continue
            if number < len(lines):
                raise JournalCorrupt(
                    f"{path}, line {number} of {len(lines)}: {error}. The journal was changed by something else; "
                    "restore it from a copy, or start a new run"
                ) from error
            warnings.warn(f"{path}: dropped a torn last line ({len(line)} bytes)", stacklevel=2)
            if repair:
                os.truncate(path, position)
            break
        position += len(line)
        yield event
    if unknown:
        kinds = ", ".join(sorted(unknown))
        warnings.warn(f"{path}: passed over events that this version does not know: {kinds}", stacklevel=2)


def _unknown_kind(line: bytes) -> str | None:
    """The kind that a whole line names, where it is none of ours."""
    try:
        kind = json.loads(line)["event"]
    except (ValueError, KeyError, TypeError):
        return None
    return kind if isinstance(kind, str) and kind not in KINDS else None


@contextmanager
def locked(paths: RunPaths) -> Iterator[None]:
    """Be the one writer of a run while the block runs: an flock that the kernel releases even after kill -9."""
    with paths.lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise RunLocked(
                f"{paths.root}: another process is writing this run ({file.read().strip() or 'unknown'}). "
                "Wait for it to end or stop it with Ctrl-C there"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def is_locked(paths: RunPaths) -> bool:
    """Whether some process is writing the run right now; leaves no trace, and works where nothing can be written."""
    try:
        with paths.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # never locked, or on a file system without locks
    return False
