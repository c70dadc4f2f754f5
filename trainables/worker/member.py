"""One member in training: intervals, evaluations and checkpoints around a `TrainTask`. Knows no scheduler and no Ray.

The same code runs in process and inside a Ray actor. What it is told (`MemberJob`) are facts of the run; what is
tried is the config inside. Every report is the state after a whole evaluation interval, whatever happened between:
an interrupted interval is finished by the next job, from the saved sums.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from trainables.api import Split, TrainTask
from trainables.errors import MetricError, OutOfMemory
from trainables.given.module import register
from trainables.registry import build_config, get_family, resolve
from trainables.trust import trust
from trainables.worker.allocator import fence, in_both_units, keep_freed_memory, out_of_memory
from trainables.worker.folder import MemberFolder
from trainables.worker.heartbeat import Heart
from trainables.worker.job import MemberJob
from trainables.worker.metrics import check_reported, counts_of, of_both_splits, taken
from trainables.worker.report import Diagnosed, Evaluated, HandedBack, Report, Tested
from trainables.worker.state import MemberState

_STOP_POLL_S = 0.5


def import_all(family: str) -> None:
    """Pay for imports before the first job: torch, the family, and what torch imports for its first optimiser."""
    import torch

    resolve(get_family(family).task)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


class MemberRun:
    """A member that is being trained; `advance` is one evaluation interval."""

    def __init__(self, job: MemberJob) -> None:
        self.job = job
        self.state = MemberState()
        self._folder = MemberFolder(job)
        self._saved_step = -1
        self._diverged = False
        self._unheard: Evaluated | None = None
        trust(job.family)  # the driver has decided
        register(Path(job.folder).parent.parent)
        family = get_family(job.family)
        limit_mib = None
        if job.device == "cpu":
            keep_freed_memory()
        elif job.gpu_fraction:
            limit_mib = fence(job.gpu_fraction)
        if limit_mib is not None:
            self._folder.log(f"{in_both_units(limit_mib)} of GPU memory at most: {job.gpu_fraction:g} of the GPU")
        self._rates = [metric for metric in family.metrics if metric.rate_of]
        config = build_config(family, written=[job.config])
        with self._in_words():
            self.task: TrainTask = resolve(family.task)(
                config, seed=job.member.seed, device=job.device, data_dir=Path(job.data_dir)
            )
            self._restore()
        self._heart = Heart(job, self.state.health, {check.metric for check in family.health}, limit_mib)

    @property
    def step(self) -> int:
        """Optimiser steps taken since the start of the member."""
        return self.state.step

    def advance(self) -> Report:
        """Train to the next evaluation, evaluate, log, save; or what else the job is for. Returns what came of it.

        Raises:
            MetricError: the task reports what is no number, or not what is needed.
            OutOfMemory: a GPU has no more memory for it.
            LeaseLost: another worker has taken the member over.
        """
        with self._in_words():
            return self._advance()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Say of which member and step an error is."""
        where = f"{self.job.member}, step {{}}: {{}}"
        try:
            yield
        except MetricError as error:
            raise MetricError(where.format(self.step, error)) from error
        except RuntimeError as error:
            import torch

            if not isinstance(error, torch.OutOfMemoryError):
                raise
            words = where.format(self.step, out_of_memory(str(error)))
            # With the frames of the task, which the record of a failure names the innermost of.
            raise OutOfMemory(words).with_traceback(error.__traceback__) from error

    def _advance(self) -> Report:
        job = self.job
        if job.purpose == "diagnose":
            return self._diagnose()
        if self._unheard is not None and job.purpose == "train":
            report, self._unheard = self._unheard, None
            return report
        if job.purpose == "test" or self.step >= job.gates[-1]:
            return self._test()
        began = time.perf_counter()
        self._heart.begin()
        outcome = self._train(self.step + job.eval_every - self.step % job.eval_every)
        self.state.interval.train_s += time.perf_counter() - began
        if outcome == "interrupted":
            self.save()
            return HandedBack(job.member, self.step)
        return self._evaluate(diverged=outcome == "diverged")

    def save(self) -> None:
        """Write a checkpoint of this moment, unless it is there or the member diverged."""
        if self._saved_step == self.step or self._diverged:
            return
        self._folder.save(self.task.state_dict(), self.state)
        self._saved_step = self.step

    def _train(self, until: int) -> Literal["done", "diverged", "interrupted"]:
        state = self.state
        next_poll = time.monotonic()
        while state.step < until:
            if time.monotonic() >= next_poll:
                self._folder.check_lease()
                if os.path.exists(self.job.stop_request) or self.job.hand_back_request.exists():
                    return "interrupted"
                next_poll = time.monotonic() + _STOP_POLL_S
            reported = self.task.step()
            state.step += 1
            metrics = taken(reported, "step()")
            check_reported(metrics, ("train_loss",), "step()")
            state.interval.add(metrics)
            self._heart.on_step(state.step, metrics)
            if not math.isfinite(metrics["train_loss"]):
                return "diverged"
        return "done"

    def _evaluate(self, *, diverged: bool) -> Evaluated:
        """The report of the interval that ends here. It is part of the state before that is saved (see `_restore`)."""
        job, state, interval = self.job, self.state, self.state.interval
        check_reported(interval.sums, counts_of(self._rates), "step()")
        metrics = interval.metrics(self._rates)
        began = time.perf_counter()
        if not diverged:
            metrics.update(self._evaluated("val", job.objective))
            diverged = not math.isfinite(metrics[job.objective])
        eval_s = time.perf_counter() - began
        self._heart.on_evaluation(metrics, eval_s)
        state.elapsed_s += interval.train_s + eval_s
        self._diverged = diverged
        if not diverged:
            state.note(metrics[job.objective], job.mode)
        self._folder.check_lease()
        found = state.health.take()
        state.report = Evaluated(job.member, self.step, metrics, interval.train_s, eval_s, diverged, found)
        said = [] if diverged else map(str, found)
        self._folder.log("\n".join([*said, self._line(state.report)]))
        state.interval = interval.next(self._rates)
        due = job.save_every is not None and self.step % job.save_every == 0
        if due or state.best_step == self.step or self.step in job.gates:
            self.save()
        return state.report

    def _evaluated(self, split: Split, *needed: str) -> dict[str, float]:
        source = f"evaluate({split!r})"
        metrics = taken(self.task.evaluate(split), source)
        check_reported(metrics, needed, source)
        return metrics

    def _line(self, report: Evaluated) -> str:
        state, job, steps = self.state, self.job, self.state.interval.steps
        value = report.metrics.get(job.objective, math.nan)
        stale = f"{report.step - state.best_step}" + (f"/{job.patience_steps}" if job.patience_steps else "")
        best = "none" if state.best is None else f"{state.best:.4f}"
        train_rate = steps / max(report.train_s, 1e-9)
        rate = steps / max(report.train_s + report.eval_s, 1e-9)
        return (
            f"Step {report.step}: {job.objective}={value:.4f} (best={best}) | train:{train_rate:.1f} steps/s"
            f" | int:{rate:.1f} steps/s | elapsed={state.elapsed_s / 60:.1f}m | stale={stale}"
        ) + (" | diverged" if report.diverged else "")

    def _test(self) -> Tested:
        """Load the best checkpoint and read both splits; the task is spent afterwards."""
        began = time.perf_counter()
        step = self._load_best()
        metrics = of_both_splits(self._evaluated("val"), self._evaluated("test"))
        return Tested(self.job.member, step, metrics, time.perf_counter() - began)

    def _diagnose(self) -> Diagnosed:
        """Load the best checkpoint and have it looked at; the task is spent afterwards."""
        began = time.perf_counter()
        step = self._load_best()
        verdicts: Mapping[str, str] = resolve(self.job.diagnose)(self.job, self.task)
        return Diagnosed(self.job.member, step, dict(verdicts), time.perf_counter() - began)

    def _load_best(self) -> int:
        task, step = self._folder.load_best()
        self.task.load_state_dict(task)
        return step

    def _restore(self) -> None:
        found = self._folder.load_latest()
        if found is None:
            return
        task, self.state = found
        self.task.load_state_dict(task)
        self._saved_step = self.step
        report = self.state.report
        # A worker that died after saving and before its report was heard must not leave a hole in the curve.
        if report is not None and report.step == self.step > self.job.from_step:
            self._unheard = report
