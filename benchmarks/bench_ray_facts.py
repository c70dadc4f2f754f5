"""The facts about Ray Tune that docs/decisions/0001 rests on, measured again in small.

Rates are of trials with nothing to do, on two slots, from the second trial that ended to the last: the start of the
first workers is left out. Not here: a judgement of Ray Tune at what it is used for, which is placing and retrying.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune import ResumeConfig
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from benchmarks.results import hardware, record, table

SLOTS = 2
TITLE = "Ray Tune, as the gates would have met it"
# What tune-rh sets; each variant changes one of these.
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": str(SLOTS),
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class Short(tune.Trainable):
    """Twice waits for ``config["wait_s"]``, says when, and reports ``config["loss"]``."""

    def setup(self, config: dict[str, Any]) -> None:
        """As a torch user's would."""
        import torch  # noqa: F401

        self.wait_s, self.loss = config.get("wait_s", 0.0), config.get("loss", 0.0)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The first of two reports, or the last."""
        began = time.time()
        time.sleep(self.wait_s)
        return {"began": began, "ended": time.time(), "loss": self.loss, "done": self.iteration >= 1}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Something small."""
        (Path(checkpoint_dir) / "state").write_text("0")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


class Stopwatch(FIFOScheduler):
    """Runs everything; notes when trials worked and when they ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[float] = []
        self.worked: list[tuple[float, float]] = []

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Go on."""
        self.worked.append((result["began"], result["ended"]))
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """The trial reported for the last time."""
        self.worked.append((result["began"], result["ended"]))
        self.ended.append(time.time())


@contextmanager
def cluster() -> Iterator[None]:
    """Ray on loopback with two cores."""
    temporary = tempfile.mkdtemp(prefix="bench-", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=SLOTS,
        _node_ip_address="127.0.0.1",
        dashboard_host="127.0.0.1",
        _temp_dir=temporary,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """`QUIET` with ``changes`` (None: Ray's default), which Tune reads when it starts."""
    before = dict(os.environ)
    for name, value in {**QUIET, **changes}.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def tuner(
    folder: Path, num_trials: int, scheduler: TrialScheduler, space: dict[str, Any], *, reuse: bool
) -> tune.Tuner:
    """A plain experiment."""
    return tune.Tuner(
        Short,
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=num_trials, scheduler=scheduler, reuse_actors=reuse, metric="loss", mode="min"
        ),
        run_config=tune.RunConfig(storage_path=str(folder), name=f"e{time.time_ns()}", verbose=0),
    )


def rate(folder: Path, num_trials: int, *, reuse: bool = True, **changes: str | None) -> float:
    """Trials a second."""
    watch = Stopwatch()
    with environment(changes):
        tuner(folder, num_trials, watch, {}, reuse=reuse).fit()
    return (num_trials - SLOTS) / (watch.ended[-1] - watch.ended[SLOTS - 1])


def both_busy(folder: Path, pending: int, num_trials: int = 30, wait_s: float = 0.5) -> float:
    """Share of the time, from the first trial's work to the last's end, that both slots work."""
    watch = Stopwatch()
    with environment({"TUNE_MAX_PENDING_TRIALS_PG": str(pending)}):
        tuner(folder, num_trials, watch, {"wait_s": wait_s}, reuse=True).fit()
    spans = sorted(set(watch.worked))
    covered, until = 0.0, -math.inf
    for began, ended in spans:
        covered += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return (sum(ended - began for began, ended in spans) - covered) / (until - spans[0][0])


def rungs(scheduler: ASHAScheduler) -> int:
    """How many results an ASHA remembers, over all rungs."""
    return sum(len(recorded) for bracket in scheduler._brackets for _, recorded in bracket._rungs)


def after_restore(folder: Path) -> tuple[int, int]:
    """What ASHA remembers when an experiment has ended, and after `Tuner.restore`."""
    scheduler = ASHAScheduler(max_t=3, grace_period=1, reduction_factor=3)
    with environment({"TUNE_GLOBAL_CHECKPOINT_S": None}):
        first = tuner(folder, 6, scheduler, {"loss": tune.uniform(0.0, 1.0)}, reuse=True)
        path = first.fit().experiment_path
        restored = tune.Tuner.restore(path, trainable=Short)
    again = restored._local_tuner._tune_config.scheduler
    return rungs(scheduler), rungs(again)


def after_pause() -> str:
    """The status of a PAUSED trial when a restored controller has put it back in its queue."""
    trial = Trial("x", stub=True)
    trial.status = Trial.PAUSED
    queue: list[Trial] = []
    controller: Any = SimpleNamespace(add_trial=queue.append)
    TuneController._requeue_restored_trials(controller, [trial], ResumeConfig())
    return str(queue[0].status)


def said_by_asha(losses: list[float]) -> list[str]:
    """Verdicts of a fresh ASHA on trials with these losses, each reported at rung 1."""
    scheduler = ASHAScheduler(metric="loss", mode="min", time_attr="t", max_t=9, grace_period=1, reduction_factor=3)
    said = []
    for number, loss in enumerate(losses):
        trial: Any = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        said.append(str(scheduler.on_trial_result(None, trial, {"t": 1, "loss": loss})))
    return said


def decisions(folder: Path) -> list[tuple[str, str]]:
    """Facts that are no rates."""
    kept, restored = after_restore(folder)
    nan = said_by_asha([0.1, 0.2, 0.3, 0.4, 0.5, math.nan, 0.6])
    worst_first = said_by_asha([9.0, 1.0, 2.0])
    left_out = "_scheduler_alg" in inspect.getsource(TuneController.__getstate__)
    return [
        ("ASHA: results in its rungs when an experiment had ended; after `Tuner.restore` of it", f"{kept}; {restored}"),
        ("`TuneController.__getstate__` names the scheduler among what it leaves out", "yes" if left_out else "no"),
        ("ASHA on a NaN after five finite losses; on a loss worse than all of them", f"{nan[5]}; {nan[6]}"),
        ("ASHA on the first trial at a rung, the worst of three", worst_first[0]),
        ("a PAUSED trial, once the restored experiment has it back", after_pause()),
    ]


def body(rates: dict[str, float], busy: dict[int, float], facts: list[tuple[str, str]]) -> str:
    """The section of RESULTS.md."""
    baseline = next(iter(rates.values()))
    speed = [(name, f"{value:.2f}", f"{value / baseline:.3f}") for name, value in rates.items()]
    slots = [(f"`TUNE_MAX_PENDING_TRIALS_PG={n}`", f"{share:.0%}") for n, share in busy.items()]
    return "\n\n".join(
        (
            table(("trials with nothing to do", "trials/s", "ratio"), speed),
            table(("30 trials of two reports, 0.5 s each, on 2 slots", "time that both work"), slots),
            table(("decisions and state", "observed"), facts),
        )
    )


def main() -> int:
    """Measure everything on one cluster."""
    with tempfile.TemporaryDirectory(prefix="bench-facts-") as name, cluster():
        folder = Path(name)
        rates = {
            "as tune-rh sets it: actors reused, no loggers, no snapshots": rate(folder, 200),
            "default loggers": rate(folder, 100, TUNE_DISABLE_AUTO_CALLBACK_LOGGERS=None),
            "snapshot interval: default": rate(folder, 200, TUNE_GLOBAL_CHECKPOINT_S=None),
            "snapshot interval: 0": rate(folder, 60, TUNE_GLOBAL_CHECKPOINT_S="0"),
            "actors not reused": rate(folder, 8, reuse=False),
        }
        busy = {pending: both_busy(folder, pending) for pending in (1, SLOTS)}
        facts = decisions(folder)
    record(TITLE, "python -m benchmarks.bench_ray_facts", hardware("ray", "torch"), body(rates, busy, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
