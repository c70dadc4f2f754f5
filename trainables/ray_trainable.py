"""The one adapter between a `TrainTask` and Ray Tune: a class Trainable whose actor is used again for other members.

State lives in the member's own folder, not in Ray's checkpoints: a new trial, a retry after a crash and a promoted
member all go on from the newest sound checkpoint there. Ray's checkpoint is a note that says which step was saved.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# Ray holds the title's memory, so no other library can write it.
from ray._raylet import setproctitle  # type: ignore[attr-defined]
from ray.tune import Trainable

from trainables.member import MemberJob, MemberRun


class MemberTrainable(Trainable):
    """One actor; ``config["job"]`` holds the fields of a `MemberJob`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Build the task and load the member's newest checkpoint."""
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another member: everything is built anew from its config, seed and checkpoint."""
        self._open(new_config)
        return True

    def __repr__(self) -> str:
        """What the dashboard calls this actor. Ray reads it once, at its start, and members come and go."""
        return f"{self.run.job.label}, then others" if hasattr(self, "run") else type(self).__name__

    def step(self) -> dict[str, Any]:
        """One evaluation interval."""
        # The process's title is read anew each time: here the dashboard and `ps` do show the present member.
        setproctitle(f"ray::{self.run.job.label}")
        # One string: Tune flattens nested results, and would mix our metrics with its own.
        return {"report": json.dumps(self.run.advance())}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Called when the trial ends: save the member where it stands."""
        if not self.run.job.test and self.run.step:
            self.run.save()
        note = {"member": self.run.job.member, "step": self.run.step}
        (Path(checkpoint_dir) / "member.json").write_text(json.dumps(note))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to do: `setup` has loaded the member's newest checkpoint, which may be newer than Ray's."""

    def _open(self, config: dict[str, Any]) -> None:
        job = MemberJob(**config["job"])
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        _limit(job)
        self.run = MemberRun(job)


def _limit(job: MemberJob) -> None:
    """Keep the process inside its share: threads on the CPU, memory on a fraction of a GPU."""
    import torch

    torch.set_num_threads(job.threads)
    if job.device == "cuda" and 0 < job.gpu_fraction < 1:
        torch.cuda.set_per_process_memory_fraction(job.gpu_fraction)
