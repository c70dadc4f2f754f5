"""The one adapter between a `TrainTask` and Ray Tune: a class Trainable whose actor is used again for other members.

State lives in the member's own folder, not in Ray's checkpoints: a new trial, a retry after a crash and a promoted
member all go on from the newest sound checkpoint there. Ray's checkpoint is a note that says which step was saved.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ray

# Ray holds the title's memory, so no other library can write it.
from ray._raylet import setproctitle  # type: ignore[attr-defined]
from ray.tune import PlacementGroupFactory, Trainable

from trainables.errors import HandedOver
from trainables.given.module import register
from trainables.trust import trust
from trainables.worker.job import MemberJob
from trainables.worker.member import MemberRun, import_all
from trainables.worker.report import REPORTS, HandedBack
from tune_rh.plan.schema import Resources
from tune_rh.preflight.environment import GIB

_WARM_POLL_S = 0.05


class MemberTrainable(Trainable):
    """One actor; ``config["job"]`` is a `MemberJob` as JSON, or None to warm up, and ``config["worker"]`` its name."""

    run: MemberRun | None = None
    _job: MemberJob | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Take a job; without one, only import what jobs need."""
        self._take(config)
        if self._job is None:
            trust(config["family"])  # the driver has decided
            register(Path(config["run"]))
            import_all(config["family"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another job: everything is built anew from its config, seed and checkpoint."""
        self._take(new_config)
        return True

    def __repr__(self) -> str:
        """What the dashboard calls this actor. Ray reads it once, at its start, and members come and go."""
        return f"{self.config['worker']} on {socket.gethostname()}"

    def step(self) -> dict[str, Any]:
        """One evaluation interval."""
        if self._job is None:
            time.sleep(_WARM_POLL_S)
            return {"warm": True, "node": ray.get_runtime_context().get_node_id()}
        # The process's title is read anew each time: here the dashboard and `ps` do show the present member.
        setproctitle(f"ray::{self._job.label}")
        if self.run is None:
            # Not in setup: Tune may give a trial another actor before its first step, and this one must not have
            # touched the member's folder.
            _limit(self._job)
            self.run = MemberRun(self._job)
        report = self.run.advance()
        if isinstance(report, HandedBack) and not os.path.exists(self._job.stop_request):
            # Tune uses the actor of a trial that ends well again, and would have the next job start on this node.
            raise HandedOver(f"{report.member} is saved at step {report.step}")
        # One string: Tune flattens nested results, and would mix our metrics with its own.
        return {"report": REPORTS.encode(report), "node": ray.get_runtime_context().get_node_id()}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Called when the trial ends: save the member where it stands."""
        if self.run is None:
            return
        if self.run.job.purpose == "train" and self.run.step:
            self.run.save()
        note = {"member": str(self.run.job.member), "step": self.run.step}
        (Path(checkpoint_dir) / "member.json").write_text(json.dumps(note), encoding="utf-8")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to do: the member's newest checkpoint is loaded with it, and may be newer than Ray's."""

    def _take(self, config: dict[str, Any]) -> None:
        self._job = None if config["job"] is None else MemberJob.from_json(config["job"])
        self.run = None


def trainable(resources: Resources) -> type[MemberTrainable]:
    """The class of the actors of jobs that ask for these resources; ``config["gpu"]`` is a trial's own share,
    and nodes whose ids are in ``config["away_from"]`` are not for it.
    """
    # Not tune.with_resources: that renames every actor to ResourceTrainable.

    class Member(MemberTrainable):
        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
            return _request(resources, config["gpu"], config["away_from"])

    Member.__qualname__ = "Member"  # what the dashboard shows
    return Member


def _request(resources: Resources, gpu: float, away_from: Collection[str]) -> PlacementGroupFactory:
    """What Ray is asked for a job on so much of a GPU; labels choose the node of the group, which the actor follows."""
    bundle = {"CPU": resources.cpu, "GPU": gpu, "memory": float(int((resources.memory_gib or 0.0) * GIB))}
    labels = {**resources.selector, **({"ray.io/node-id": f"!in({','.join(away_from)})"} if away_from else {})}
    selector: dict[str, Any] = {"bundle_label_selector": [labels]} if labels else {}
    return PlacementGroupFactory([{**bundle, **resources.custom}], **selector)


def _limit(job: MemberJob) -> None:
    """Keep the process inside its share of the cores; `MemberRun` keeps it inside that of a GPU."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(job.threads)
