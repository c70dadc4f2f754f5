"""A search in Weights & Biases: a run for each member, in the group of the search.

Offline unless ``WANDB_MODE`` says otherwise: runs lie below ``wandb/`` in the run's folder, and ``wandb sync`` uploads
them. The project is ``WANDB_PROJECT``, or called as the family.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.registry import get_family
from tune_rh.record.events import Diagnosed, Evaluated, Event, JobEnded, MemberId, SessionEnded, Tested
from tune_rh.record.history import History
from tune_rh.watch.trackers import facts


class WandB:
    """A watcher.

    Args:
        project: the name of one (None: ``WANDB_PROJECT``, or the family's).
        mode: ``offline`` or ``online`` (None: ``WANDB_MODE``, or offline).
    """

    def __init__(self, project: str | None = None, mode: str | None = None) -> None:
        self._project, self._mode = project, mode
        self._runs: dict[MemberId, Any] = {}

    def begin(self, root: Path, history: History) -> None:
        """Go on in the runs of this search."""
        self._root, self._identity = root, facts.identity(root)
        self._runs = {}

    def __call__(self, event: Event, history: History) -> None:
        """Log what ``event`` says."""
        match event:
            case Evaluated():
                run = self._of(event.member, history)
                run.log({**event.metrics, "stage": history.member(event.member).stage + 1}, step=event.step)
            case Tested():
                self._of(event.member, history).summary.update(dict(event.metrics))
            case Diagnosed():
                verdicts = {f"diagnosis.{name}": verdict for name, verdict in event.verdicts.items()}
                self._of(event.member, history).summary.update(verdicts)
            case JobEnded():
                run = self._runs.pop(event.member, None)
                if run is not None:
                    run.finish(exit_code=int(event.outcome in ("failed", "diverged")))
            case SessionEnded():
                self._end(event, history)

    def _end(self, event: SessionEnded, history: History) -> None:
        found = facts.best(history, self._root) if event.reason == "finished" else None
        if found is not None:
            self._keep_best(*found, history)
        while self._runs:
            self._runs.popitem()[1].finish()

    def _keep_best(self, member: MemberId, config: Mapping[str, Any], weights: Path | None, history: History) -> None:
        import wandb

        run = self._of(member, history)
        run.summary.update({"best": True})
        if weights is not None:
            artifact = wandb.Artifact(f"{history.plan.name}-best", type="model", metadata=dict(config))
            artifact.add_file(str(weights))
            run.log_artifact(artifact)

    def _of(self, member: MemberId, history: History) -> Any:
        """The run of a member, which is begun, or gone on with."""
        import wandb

        if member not in self._runs:
            tags = facts.tags(history, member)
            self._runs[member] = wandb.init(
                project=self._project or os.environ.get("WANDB_PROJECT") or get_family(history.plan.family).name,
                mode=self._mode or os.environ.get("WANDB_MODE") or "offline",  # type: ignore[arg-type]
                dir=os.environ.get("WANDB_DIR") or str(self._root),
                id=f"{self._identity}-{member}",
                name=str(member),
                group=history.plan.name,
                config={**history.candidates[member.candidate].added.config, **tags, "seed": member.seed},
                tags=[f"{name}:{tags[name]}"[:64] for name in ("run", "stage", "seed")],
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
            )
        return self._runs[member]
