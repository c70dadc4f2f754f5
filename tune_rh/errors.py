"""What can go wrong in a search, and the exit code that the command line gives for it.

    TuneError                       exit code 2
    +-- PlanError                   2   the plan, a preset, a space or an option is wrong
    +-- PreflightRefused            3   the plan is sound, but cannot or should not run here
    +-- RunError                    5
    |   +-- RunExists               5   a run of that name is on disk: resume it or choose another name
    |   +-- RunNotFound             5   no run of that name is on disk
    |   +-- RunLocked               5   another process is writing it
    |   +-- RunMismatch             5   plan, data or schema are not those that the run began with
    |   +-- JournalCorrupt          5   the frozen plan, or a line inside the journal (not the last one), cannot be read
    |   +-- StorageFull             5   the disk is full; what was written before is safe
    +-- ExportError                 2   there is nothing to export, or the folder is taken
    trainables.errors.TrainableError   2   data or checkpoints (see its own tree)
    OSError                            2   a file or folder that was named cannot be read or written
Two outcomes of a search are no exceptions: some members failed (exit code 4), and interrupted (130, resumable).
"""

from __future__ import annotations

import errno
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
    """The frozen plan, or a line inside the journal, cannot be read."""


class StorageFull(RunError):
    """The disk is full; what was written before is safe."""


@contextmanager
def storage_full(path: Path, then: str) -> Iterator[None]:
    """Raise `StorageFull` naming ``path`` where the block runs into a full disk; ``then`` is what to do next."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"{path}: the disk is full; nothing that was written before is lost. Free some space, then {then}"
            ) from error
        raise
