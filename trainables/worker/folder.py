"""The folder of one member: which worker may write it, its log, and its checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.errors import CheckpointError, CheckpointMismatch, LeaseLost
from trainables.files import make_folder, write_atomic
from trainables.given.module import given_modules
from trainables.worker import checkpoint
from trainables.worker.job import MemberJob
from trainables.worker.state import MemberState


class MemberFolder:
    """Takes the lease of the job's folder; from then on a worker that held it before is refused."""

    def __init__(self, job: MemberJob) -> None:
        self._job = job
        self._path = Path(job.folder)
        self._checkpoints = self._path / "checkpoints"
        self._is_log_lost = False
        make_folder(self._path)
        if (self._path / "lease").exists():
            self._check(_is_newer(self._holder(), job.lease))
        write_atomic(self._path / "lease", job.lease, durable=False)

    def check_lease(self) -> None:
        """Raise `LeaseLost` if another worker has taken the member over."""
        self._check(self._holder() != self._job.lease)

    def _holder(self) -> str:
        return (self._path / "lease").read_text(encoding="utf-8")

    def _check(self, is_lost: bool) -> None:
        if is_lost:
            raise LeaseLost(
                f"{self._path}: taken over by {self._holder()!r}; this worker ({self._job.lease!r}) gives up"
            )

    def log(self, line: str) -> None:
        """Append to ``train.log``, which is for people: it repeats what is trained again after a crash.

        A line that cannot be written is lost, with a warning for the first: no member ends for that.
        """
        try:
            with (self._path / "train.log").open("a", encoding="utf-8") as log:
                log.write(line + "\n")
        except OSError as error:
            if not self._is_log_lost:
                warnings.warn(f"{self._path / 'train.log'}: cannot be written ({error.strerror})", stacklevel=2)
            self._is_log_lost = True

    def save(self, task: Mapping[str, Any], state: MemberState) -> None:
        """Write a checkpoint of the task at ``state``, point ``best`` at it if it is, drop those no longer kept."""
        self.check_lease()
        facts = {
            "family": self._job.family,
            "config_digest": self._job.config_digest,
            "member": str(self._job.member),
            "state": state.to_json(),
        }
        checkpoint.save(self._checkpoints, state.step, task, facts)
        self._link_best(state)
        checkpoint.prune(self._checkpoints, set(self._job.gates))

    def load_latest(self) -> tuple[dict[str, Any], MemberState] | None:
        """The task's state and the member's at the newest sound checkpoint; None if there is none."""
        found = checkpoint.load_latest(self._checkpoints, config_digest=self._job.config_digest)
        if found is None:
            return None
        task, index = found
        families = {index["family"], self._job.family}
        # A task that was given in Python may have been mended since.
        if len(families) > 1 and len(given_modules(families)) < 2:
            raise CheckpointMismatch(f"{self._checkpoints}: family {index['family']}, expected {self._job.family}")
        state = MemberState.from_json(index["state"])
        # A crash, or a corrupt checkpoint, leaves links behind that point elsewhere.
        checkpoint.point(self._checkpoints, "latest", self._checkpoints / f"step-{state.step:08d}")
        self._link_best(state)
        return task, state

    def load_best(self) -> tuple[dict[str, Any], int]:
        """The task's state at the best checkpoint, and its step; raises `CheckpointError` if there is none."""
        best = checkpoint.linked(self._checkpoints, "best")
        if best is None:
            raise CheckpointError(f"{self._checkpoints}: there is no best checkpoint to {self._job.purpose}")
        task, index = checkpoint.load(best, config_digest=self._job.config_digest)
        return task, index["step"]

    def _link_best(self, state: MemberState) -> None:
        if state.best_step == state.step and state.step:
            checkpoint.point(self._checkpoints, "best", self._checkpoints / f"step-{state.step:08d}")


def _is_newer(lease: str, than: str) -> bool:
    """Whether the driver that gave out both leases, ``<driver>.<number>``, gave out this one later."""
    (driver, _, number), (other, _, before) = lease.rpartition("."), than.rpartition(".")
    return driver == other and number.isdecimal() and int(number) > int(before)
