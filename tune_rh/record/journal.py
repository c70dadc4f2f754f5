"""One run on disk: the only place that knows file names, and the only writer of the journal.

The journal is append-only; lines are flushed to the disk, those of one step of the session together, before anything
acts on them. A line carries its number and a checksum over itself and all lines before it. Reading drops a torn last
line with a warning (a process died while writing it, or is writing it) and refuses anything else that is not what was
written.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tune_rh.errors import JournalCorrupt, RunLocked, StorageError, storage
from tune_rh.record.events import KINDS, Event, MemberId, decode, encode

JOURNAL_SCHEMA = 4


class RunPaths:
    """Every file and folder of a run, from its root ``runs/<name>``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / "plan.toml"  # as it was resolved
        self.provenance = root / "provenance.json"  # what code, libraries, data and machine the run began with
        self.journal = root / "journal.jsonl"  # the append-only record
        self.snapshot = root / "snapshot"  # of a long journal, folded; made again from it if it is lost
        self.study = root / "study.db"  # of Optuna; made again from the journal if it is lost
        self.lock = root / "lock"  # held by the one process that writes the run
        self.stop_request = root / "stop-requested"  # workers that see it hand their member back at the next step
        self.members = root / "members"
        self.ray = root / "ray"  # Ray Tune's own files
        self.best = root / "best"  # the exported best candidate
        self.tensorboard = root / "tensorboard"
        self.watch = root / "watch"  # how far the plan's watchers have been told
        self.report = root / "report"  # text, figures, tables

    @property
    def payloads(self) -> list[Path]:
        """What of its task was given in Python (`trainables.given.module`); there from the start."""
        return sorted(self.root.glob("given_*.pkl"))

    def member(self, member: MemberId | str) -> Path:
        """The folder of one member (`trainables.worker.folder` writes it)."""
        return self.members / str(member)


class Chain:
    """Seals the lines of a journal one after another, and checks that lines are sealed so.

    A line is the event's own JSON with ``seq`` and ``checksum`` before it. The checksum covers the one before, so that
    a line which is changed, removed, repeated, moved or taken from another run does not fit.
    """

    _LINE = re.compile(rb'\{"seq":(\d{1,18}),"checksum":"([0-9a-f]{16})",(.+)\}\n', re.DOTALL)

    def __init__(self, seq: int = 0, checksum: bytes = b"") -> None:
        self.seq = seq
        self._checksum = checksum

    @property
    def checksum(self) -> str:
        """Of the last line and all before it; empty before the first."""
        return self._checksum.decode()

    @classmethod
    def after(cls, line: bytes) -> Chain:
        """The chain as it goes on after the last line of a journal that was read; empty: from the start."""
        seq, checksum, _ = cls._parts(line) if line else (0, b"", b"")
        return cls(seq, checksum)

    def seal(self, event: str) -> bytes:
        """The line of the next event, given as `encode` writes it; with its newline."""
        fields = event[1:-1].encode()
        self._step(fields)
        return b'{"seq":%d,"checksum":"%s",%s}\n' % (self.seq, self._checksum, fields)

    def open(self, line: bytes) -> bytes:
        """The JSON of the event in the next line; raises ValueError if that line was never written here."""
        seq, checksum, fields = self._parts(line)
        if seq != self.seq + 1:
            raise ValueError(f"numbered {seq}, where {self.seq + 1} follows: lines are missing, repeated or moved")
        self._step(fields)
        if checksum != self._checksum:
            raise ValueError("does not fit its checksum")
        return b"{%s}" % fields

    @classmethod
    def _parts(cls, line: bytes) -> tuple[int, bytes, bytes]:
        parts = cls._LINE.fullmatch(line)
        if parts is None:
            raise ValueError("no line of a journal: seq, checksum and the event")
        seq, checksum, fields = parts.groups()
        return int(seq), checksum, fields

    def _step(self, fields: bytes) -> None:
        self.seq += 1
        covered = b"%s %d %s" % (self._checksum, self.seq, fields)
        self._checksum = hashlib.sha256(covered).hexdigest()[:16].encode()


class Journal:
    """Appends events, a line each and synced, to a journal that is whole (`read` repairs one)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered, so that a failed write leaves nothing behind that a later one would flush.
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._chain = Chain.after(_last_line(path))
        self._held: list[str] = []
        self._is_torn = False

    @property
    def num_events(self) -> int:
        """How many events it holds."""
        return self._chain.seq

    def append(self, event: Event) -> None:
        """Write ``event`` so that it survives a power cut; raises as `commit`, and does not write it later."""
        self.hold(event)
        try:
            self.commit()
        except (StorageError, RunLocked):
            self._held.pop()
            raise

    def hold(self, event: Event) -> None:
        """Have the next `commit` write ``event``; raises ValueError if it has no JSON."""
        self._held.append(encode(event))

    def commit(self) -> None:
        """Write all that is held, in one piece, so that it survives a power cut.

        Raises:
            StorageError: it cannot be written; no half line is left behind, and all stays held for another try.
            RunLocked: another process has written to the journal.
        """
        if not self._held:
            return
        chain = copy(self._chain)
        lines = b"".join(map(chain.seal, self._held))
        with storage(self._path, "resume the run"):
            if self._is_torn:
                self._cut()
            if os.fstat(self._file.fileno()).st_size != self._size:
                raise RunLocked(f"{self._path}: another process is writing it; this one stops before it writes more")
            self._is_torn = True
            try:
                if self._file.write(lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except BaseException:
                self._cut()
                raise
        self._chain, self._size, self._is_torn = chain, self._size + len(lines), False
        self._held.clear()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _cut(self) -> None:
        """Take back what a failed write has left. Until that succeeds nothing more is written: it would be damage."""
        os.ftruncate(self._file.fileno(), self._size)
        self._is_torn = False


@dataclass
class Mark:
    """How far a journal has been read: the bytes of its whole lines, and their chain."""

    position: int = 0
    chain: Chain = field(default_factory=Chain)


def mark_after(path: Path, num_events: int) -> Mark:
    """Where the journal goes on after its first ``num_events``, or after all where it has fewer; nothing is decoded."""
    mark, line = Mark(), b""
    with path.open("rb") as file:
        for _ in range(num_events):
            following = file.readline()
            if not following.endswith(b"\n"):
                break
            line = following
            mark.position += len(line)
    mark.chain = Chain.after(line)
    return mark


def read(
    path: Path, *, repair: bool = False, tolerant: bool = False, mark: Mark | None = None, follows: bool = False
) -> Iterator[Event]:
    """Yield the events of a journal in order; a torn last line is dropped with a warning.

    Args:
        path: the journal; a missing file has no events.
        repair: cut a torn last line off the file (only the process that holds the lock may).
        tolerant: pass over kinds of events that are not known here, with one warning; for those who only look.
        mark: how far it has been read before; it moves on with each event.
        follows: a torn line is left for the next time, with nothing said.

    Raises:
        JournalCorrupt: a whole line is not what was written.
    """
    if not path.exists():
        return
    unknown: set[str] = set()
    at = mark or Mark()
    before, lines = at.chain.seq, _lines(path, at.position)
    for number, line in enumerate(lines, start=before + 1):
        if number == before + len(lines) and _is_torn(line):
            if not follows:
                warnings.warn(f"{path}: dropped a torn last line ({len(line)} bytes)", stacklevel=2)
            if repair:
                os.truncate(path, at.position)
            break
        at.position += len(line)
        fields = b""
        try:
            fields = at.chain.open(line)
            event = decode(fields)
        except ValueError as error:
            if tolerant and (kind := _unknown_kind(fields)):
                unknown.add(kind)
                continue
            raise JournalCorrupt(
                f"{path}, line {number} of {before + len(lines)}: {error}. The journal was changed by something else; "
                "restore it from a copy, or start a new run"
            ) from error
        yield event
    if unknown:
        kinds = ", ".join(sorted(unknown))
        warnings.warn(f"{path}: passed over events that this version does not know: {kinds}", stacklevel=2)


def _last_line(path: Path) -> bytes:
    """The last line of a journal that is whole; empty if it has none."""
    with path.open("rb") as file:
        size, reach = file.seek(0, os.SEEK_END), 2**12
        while True:
            file.seek(max(0, size - reach))
            end = file.read()
            start = end.rfind(b"\n", 0, -1) + 1
            if start or reach >= size:
                return end[start:]
            reach *= 16


def _lines(path: Path, position: int) -> list[bytes]:
    with path.open("rb") as file:
        file.seek(position)
        return file.readlines()


def _is_torn(line: bytes) -> bool:
    """Whether a last line was cut off while it was written, or holds what a power cut left of a page: zeros."""
    return not line.endswith(b"\n") or b"\0" in line


def _unknown_kind(line: bytes) -> str | None:
    """The kind that a whole line names, where it is none of ours."""
    try:
        kind = json.loads(line)["event"]
    except (ValueError, KeyError, TypeError):
        return None
    return kind if isinstance(kind, str) and kind not in KINDS else None


@contextmanager
def locked(paths: RunPaths) -> Iterator[None]:
    """Be the one writer of a run while the block runs: a lock that the kernel releases even after kill -9."""
    with paths.lock.open("a+b", buffering=0) as file:
        try:
            _take_lock(file)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.seek(0)
                raise RunLocked(
                    f"{paths.root}: another process is writing this run "
                    f"({file.read().decode(errors='replace').strip() or 'unknown'}). "
                    "Wait for it to end or stop it with Ctrl-C there"
                ) from error
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{paths.root}: this file system has no locks ({error.strerror}), so nothing keeps a second process "
                "from this run: start one at a time",
                stacklevel=4,
            )
        with suppress(OSError):  # who holds the lock is a help, not the lock
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield


def is_locked(paths: RunPaths) -> bool:
    """Whether some process is writing the run right now; leaves no trace, and works where nothing can be written."""
    try:
        with paths.lock.open("rb") as file:
            return _is_lock_held(file)
    except OSError:
        return False  # never locked, or on a file system without locks


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

if sys.platform == "linux":
    # A lock of the open file, as flock's is, and other than flock's it can be asked for without being taken: who only
    # looks must not refuse the run to a writer that starts at that moment.

    def _take_lock(file: IO[bytes]) -> None:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))

    def _is_lock_held(file: IO[bytes]) -> bool:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
        return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)

    def _whole_file(kind: int) -> bytes:
        return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)  # struct flock

else:

    def _take_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_lock_held(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
