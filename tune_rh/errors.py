"""What can go wrong in a search, and the exit code that the command line gives for it.

    TuneError                       exit code 2
    +-- PlanError                   2   the plan, a preset, a space or an option is wrong
    +-- PreflightRefused            3   the plan is sound, but cannot or should not run here
    +-- RunError                    5
    |   +-- RunExists               5   a run of that name is on disk: resume it or choose another name
    |   +-- RunNotFound             5   no run of that name is on disk
    |   +-- RunLocked               5   another process is writing it
    |   +-- RunMismatch             5   plan, data or schema are not those that the run began with
    |   +-- JournalCorrupt          5   the frozen plan or a line of the journal is not what was written
    |   +-- StorageError            5   the disk is full or the file system failed; what was written before is safe
    |   +-- TaskFailed              5   the task's code raised what it would in every member: mend it, then resume
    +-- ExportError                 2   there is nothing to export, or the folder is taken
    trainables.errors.TrainableError   2   data or checkpoints (see its own tree)
    OSError                            2   a file or folder that was named cannot be read or written
Two outcomes of a search are no exceptions: some members failed (exit code 4), and interrupted (130, resumable).
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DONE = 0
SOME_MEMBERS_FAILED = 4
INTERRUPTED = 130


class TuneError(Exception):
    """Base of everything that a user can mend; its text is the whole message."""

    exit_code = 2


class PlanError(TuneError):
    """The plan, a preset, a space or an option is wrong."""


class PreflightRefused(TuneError):
    """The plan is sound, but cannot or should not run here."""

    exit_code = 3


class ExportError(TuneError):
    """There is nothing to export, or the folder is taken."""


class RunError(TuneError):
    """A run on disk cannot be used as asked."""

    exit_code = 5


class RunExists(RunError):
    """A run of that name is on disk."""


class RunNotFound(RunError):
    """No run of that name is on disk."""


class RunLocked(RunError):
    """Another process is writing the run."""


class RunMismatch(RunError):
    """Plan, data or schema are not those that the run began with."""


class JournalCorrupt(RunError):
    """The frozen plan, or a line of the journal, is not what was written."""


class StorageError(RunError):
    """The disk is full or the file system failed; what was written before is safe."""


class TaskFailed(RunError):
    """The task's code raised what it would in every member; mend it, then resume the run."""


_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
FULL = tuple(_FULL.values())
_FAILED = {number: os.strerror(number).lower() for number in (errno.EIO, errno.EROFS, errno.ESTALE, errno.EFBIG)}
_WORDS = "|".join(re.escape(os.strerror(number)) for number in (*_FULL, *_FAILED))
_NUMBER = re.compile(rf"\[Errno (\d+)\]|\(os error (\d+)\)|(?:{_WORDS}) \((\d+)\)")  # Python, Rust, C++ of torch


def first_line(error: BaseException) -> str:
    """What an error says first; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def storage_problem(error: BaseException | str) -> str | None:
    """What the file system refused, in words, where that is behind ``error`` (or the text of a traceback); else None.

    A worker's error arrives as text, and libraries wrap the error of the system: its number is what all texts keep.
    """
    text = error if isinstance(error, str) else "".join(traceback.format_exception(error))
    numbers = [int("".join(found)) for found in _NUMBER.findall(text)]
    return next((_FULL.get(n) or _FAILED[n] for n in numbers if n in _FULL or n in _FAILED), None)


def storage_error(path: Path, problem: str, then: str) -> StorageError:
    """The error that says what `storage_problem` found at ``path``, and ``then`` what to do next."""
    mend = "Free some space" if problem.endswith(FULL) else "Mend the file system"
    return StorageError(f"{path}: {problem}; nothing that was written before is lost. {mend}, then {then}")


@contextmanager
def storage(path: Path, then: str) -> Iterator[None]:
    """Raise `StorageError` naming ``path`` where the block fails of its file system; ``then`` is what to do next."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        problem = storage_problem(error)
        if problem is None:
            raise
        raise storage_error(path, problem, then) from error


def is_read_only(error: OSError) -> bool:
    """Whether it says that nothing may be written there."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
