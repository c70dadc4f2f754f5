"""One member in training: its folder, curve and checkpoints around a `TrainTask`. Knows no scheduler and no Ray.

The same code runs in process and inside a Ray actor. What it is told (`MemberJob`) are facts of the run; what is
tried is the config inside. Every report is the state after a whole evaluation interval, whatever happened between:
an interrupted interval is finished by the next job, from the saved sums.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainables import checkpoint
from trainables.allocator import keep_freed_memory
from trainables.api import TrainTask
from trainables.errors import CheckpointError, CheckpointMismatch
from trainables.files import write_atomic
from trainables.member_job import MemberJob
from trainables.registry import build_config, get_family, resolve

_STOP_POLL_S = 0.5
_AVERAGED = ("train_", "grad_norm")


@dataclass
class Progress:
    """What a checkpoint has to remember beside the task's own state."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    elapsed_s: float = 0.0
    interval_train_s: float = 0.0
    interval_steps: int = 0
    interval_sums: dict[str, float] = field(default_factory=dict)
    counted: dict[str, float] = field(default_factory=dict)
    """The counts that rates are made of, as they were at the start of the interval."""
    report: dict[str, Any] | None = None


class LeaseLost(CheckpointError):
    """Another worker has taken this member over."""


class MemberRun:
    """A member that is being trained; `advance` is one evaluation interval."""

    def __init__(self, job: MemberJob) -> None:
        self.job = job
        self.folder = Path(job.folder)
        self.checkpoints = self.folder / "checkpoints"
        self.progress = Progress()
        self._saved_step = -1
        self._diverged = False
        self._unheard: dict[str, Any] | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "lease").write_text(job.lease)
        family = get_family(job.family)
        if job.device == "cpu":
            keep_freed_memory()
        self._rates = [metric for metric in family.metrics if metric.rate_of]
        config = build_config(family, job.config)
        self.task: TrainTask = resolve(family.task)(
            config, seed=job.seed, device=job.device, data_dir=Path(job.data_dir)
        )
        self._restore()

    @property
    def step(self) -> int:
        """Optimiser steps taken since the start of the member."""
        return self.progress.step

    def advance(self) -> dict[str, Any]:
        """Train to the next evaluation, evaluate, record, save. Returns the report.

        The report has ``step``, ``metrics``, ``train_s``, ``eval_s``, ``diverged`` and ``interrupted`` (the stop
        request came first: the state is saved, there are no new metrics).
        """
        if self.job.purpose == "diagnose":
            return self._diagnose()
        if self._unheard is not None and self.job.purpose == "train":
            report, self._unheard = self._unheard, None
            return report
        if self.job.purpose == "test" or self.step >= self.job.gates[-1]:
            return self._test()
        began = time.perf_counter()
        outcome = self._train(self.step + self.job.eval_every - self.step % self.job.eval_every)
        self.progress.interval_train_s += time.perf_counter() - began
        if outcome == "interrupted":
            self.save()
            return {"step": self.step, "metrics": {}, "train_s": 0.0, "eval_s": 0.0, "interrupted": True}
        return self._report(diverged=outcome == "diverged")

    def save(self) -> None:
        """Write a checkpoint of this moment, unless it is there or the member diverged; prunes those no longer kept."""
        if self._saved_step == self.step or self._diverged:
            return
        self._check_lease()
        progress = self.progress
        facts = {
            "family": self.job.family,
            "config_digest": self.job.config_digest,
            "member": self.job.member,
            "progress": dict(vars(progress)),
        }
        checkpoint.save(self.checkpoints, self.step, self.task.state_dict(), facts)
        self._saved_step = self.step
        self._link_best()
        checkpoint.prune(self.checkpoints, set(self.job.gates))

    def _link_best(self) -> None:
        if self.progress.best_step == self.step and self.step:
            checkpoint.point(self.checkpoints, "best", self.checkpoints / f"step-{self.step:08d}")

    def _train(self, until: int) -> Literal["done", "diverged", "interrupted"]:
        progress = self.progress
        next_poll = time.monotonic()
        while progress.step < until:
            if time.monotonic() >= next_poll:
                if os.path.exists(self.job.stop_request):
                    return "interrupted"
                next_poll = time.monotonic() + _STOP_POLL_S
            metrics = self.task.step()
            progress.step += 1
            progress.interval_steps += 1
            sums = progress.interval_sums
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value if name.startswith(_AVERAGED) else value
            if not math.isfinite(metrics["train_loss"]):
                return "diverged"
        return "done"

    def _report(self, *, diverged: bool) -> dict[str, Any]:
        progress = self.progress
        steps = progress.interval_steps
        metrics = {
            name: value / steps if name.startswith(_AVERAGED) else value
            for name, value in progress.interval_sums.items()
        }
        train_s, progress.interval_train_s = progress.interval_train_s, 0.0
        for rate in self._rates:
            count = metrics[rate.rate_of]
            metrics[rate.name] = (count - progress.counted.get(rate.rate_of, 0.0)) / max(train_s, 1e-9)
            progress.counted[rate.rate_of] = count
        progress.interval_steps, progress.interval_sums = 0, {}
        began = time.perf_counter()
        if not diverged:
            metrics.update(self.task.evaluate("val"))
            diverged = not math.isfinite(metrics[self.job.objective])
        eval_s = time.perf_counter() - began
        progress.elapsed_s += train_s + eval_s
        self._diverged = diverged
        if not diverged:
            self._note_best(metrics[self.job.objective])
        self._check_lease()
        self._record(metrics, steps, train_s, eval_s, diverged=diverged)
        report = progress.report = {
            "step": self.step,
            "metrics": metrics,
            "train_s": train_s,
            "eval_s": eval_s,
            "diverged": diverged,
            "interrupted": False,
        }
        due = self.job.save_every is not None and self.step % self.job.save_every == 0
        if not diverged and (due or progress.best_step == self.step or self.step in self.job.gates):
            self.save()
        return report

    def _note_best(self, value: float) -> None:
        best = self.progress.best
        if best is None or (value < best if self.job.mode == "min" else value > best):
            self.progress.best, self.progress.best_step = value, self.step

    def _record(
        self, metrics: Mapping[str, float], steps: int, train_s: float, eval_s: float, *, diverged: bool
    ) -> None:
        progress = self.progress
        value = metrics.get(self.job.objective, math.nan)
        patience = self.job.patience_steps
        stale = f"{self.step - progress.best_step}" + (f"/{patience}" if patience else "")
        best = "none" if progress.best is None else f"{progress.best:.4f}"
        train_rate, rate = steps / max(train_s, 1e-9), steps / max(train_s + eval_s, 1e-9)
        line = (
            f"Step {self.step}: {self.job.objective}={value:.4f} (best={best}) | train:{train_rate:.1f} steps/s"
            f" | int:{rate:.1f} steps/s | elapsed={progress.elapsed_s / 60:.1f}m | stale={stale}"
        )
        row = {"step": self.step, "train_s": train_s, "eval_s": eval_s, "diverged": diverged, "metrics": dict(metrics)}
        with (self.folder / "train.log").open("a") as log:
            log.write(line + (" | diverged\n" if diverged else "\n"))
        with (self.folder / "metrics.jsonl").open("a") as rows:
            rows.write(json.dumps(row) + "\n")

    def _test(self) -> dict[str, Any]:
        """Load the best checkpoint and read both splits; the task is spent afterwards."""
        began = time.perf_counter()
        step = self._load_best()
        metrics = {**self.task.evaluate("val"), **self.task.evaluate("test")}
        took = time.perf_counter() - began
        return {"step": step, "metrics": metrics, "train_s": 0.0, "eval_s": took, "tested": True}

    def _diagnose(self) -> dict[str, Any]:
        """Load the best checkpoint and have it looked at; the task is spent afterwards."""
        began = time.perf_counter()
        step = self._load_best()
        verdicts: Mapping[str, str] = resolve(self.job.diagnose)(self.job, self.task)
        took = time.perf_counter() - began
        return {"step": step, "verdicts": dict(verdicts), "train_s": 0.0, "eval_s": took, "diagnosed": True}

    def _load_best(self) -> int:
        """Returns the step of the best checkpoint, which the task holds now."""
        best = checkpoint.linked(self.checkpoints, "best")
        if best is None:
            raise CheckpointError(f"{self.checkpoints}: there is no best checkpoint to {self.job.purpose}")
        state, index = checkpoint.load(best, config_digest=self.job.config_digest)
        self.task.load_state_dict(state)
        step: int = index["step"]
        return step

    def _restore(self) -> None:
        found = checkpoint.load_latest(self.checkpoints, config_digest=self.job.config_digest)
        if found is not None:
            state, index = found
            if index["family"] != self.job.family:
                raise CheckpointMismatch(f"{self.checkpoints}: family {index['family']}, expected {self.job.family}")
            self.task.load_state_dict(state)
            self.progress = Progress(**index["progress"])
            self._saved_step = self.step
            report = self.progress.report
            # A worker that dies after saving and before its report is heard must not leave a hole in the curve.
            if report and report["step"] == self.step > self.job.from_step:
                self._unheard = report
            # Links that a crash, or a corrupt checkpoint, left behind.
            checkpoint.point(self.checkpoints, "latest", self.checkpoints / f"step-{self.step:08d}")
            self._link_best()
        self._drop_rows_after(self.step)

    def _drop_rows_after(self, step: int) -> None:
        """The curve on disk ends where the checkpoint stands; what follows is trained, and written, again."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break  # a torn last line
            if row["step"] > step:
                break
            kept.append(line + "\n")
        write_atomic(path, "".join(kept))

    def _check_lease(self) -> None:
        holder = (self.folder / "lease").read_text()
        if holder != self.job.lease:
            raise LeaseLost(f"{self.folder}: taken over by {holder!r}; this worker ({self.job.lease!r}) gives up")
