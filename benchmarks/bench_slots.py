"""How much of the slots' time is training: this project's search on Ray Tune, beside stock Ray Tune on the same work.

Slot use = seconds in training and evaluation / (slots x wall time from the first job's start to the last job's end).
A job starts when it is handed out, so the start of the worker processes is counted on both sides. The work is the
scripted family's: 36 candidates to 20 steps, the best third on to 60, each step a busy wait, about 2 s a job.

The stock side is a class Trainable with ASHAScheduler and OptunaSearch at their defaults, with the same resources,
curves, candidates and rungs; an actor a trial, as Tune does by default. torch is imported on both sides.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import ray
from optuna import Trial
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from benchmarks.results import hardware, record, table
from tests.worlds import family as scripted
from tests.worlds import plans
from tune_rh.cli.terminal import Terminal
from tune_rh.record.events import Evaluated, JobEnded, JobStarted, Tested
from tune_rh.record.journal import RunPaths, read
from tune_rh.run import runs
from tune_rh.run.execute import Place, execute

SLOTS = 2
EVAL_EVERY, GATE, END = 10, 20, 60
STEP_S = 0.08
GOAL = 0.90
TITLE = "Slot use"


@dataclass(frozen=True)
class Use:
    """What one side did with its slots."""

    jobs: int
    busy_s: float
    wall_s: float
    from_first_step_s: float

    @property
    def slot_use(self) -> float:
        """The share of slot time in training and evaluation."""
        return self.busy_s / (SLOTS * self.wall_s)

    @property
    def once_up(self) -> float:
        """The same, counted from the first training step of all instead of the first job's start."""
        return self.busy_s / (SLOTS * self.from_first_step_s)


def ours(folder: Path, num_candidates: int) -> Use:
    """A search from plan to export with the Ray runner."""
    plan = plans.plan(
        num_candidates=num_candidates - 1,  # and the control
        seeds=[7],
        eval_every=EVAL_EVERY,
        stages=[{"until_step": GATE, "num_seeds": 1}, {"until_step": END, "num_seeds": 1}],
        fixed={"step_s": STEP_S},
        resources={"cpu": 1, "slots": SLOTS},
    )
    paths = runs.create(plan, folder / "run", folder)
    execute(paths, Place(folder), Terminal(Console(file=StringIO())), lambda paths, history: None)
    return from_journal(paths)


def from_journal(paths: RunPaths) -> Use:
    """Slot use of any finished run, from its journal."""
    num_jobs, busy, last = 0, 0.0, 0.0
    first_start = first_step = math.inf
    in_job: dict[str, float] = {}
    for event in read(paths.journal):
        match event:
            case JobStarted():
                num_jobs += 1
                in_job[event.member] = 0.0
                first_start = min(first_start, event.at_s)
            case Evaluated() | Tested():
                seconds = event.eval_s + (event.train_s if isinstance(event, Evaluated) else 0.0)
                in_job[event.member] += seconds
                busy += seconds
            case JobEnded():
                last = max(last, event.at_s)
                # The journal does not say when training began: this is that moment or a little later.
                first_step = min(first_step, event.at_s - in_job[event.member])
    return Use(num_jobs, busy, last - first_start, last - first_step)


class StockTrainable(tune.Trainable):
    """What a torch user would write for the same task."""

    def setup(self, config: dict[str, Any]) -> None:
        """Build the task."""
        import torch

        torch.set_num_threads(1)
        fields = {name: value for name, value in config.items() if name != "intervals"}
        self._task = scripted.ScriptedTask(
            scripted.ScriptedConfig(step_s=STEP_S, **fields), seed=7, device="cpu", data_dir=Path()
        )
        self._intervals = Path(config["intervals"]) / self.trial_id

    def step(self) -> dict[str, Any]:
        """One evaluation interval."""
        began = time.time()
        for _ in range(EVAL_EVERY):
            self._task.step()
        metrics = self._task.evaluate()
        with self._intervals.open("a") as file:
            file.write(json.dumps([began, time.time()]) + "\n")
        return metrics

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The state, where Tune wants it."""
        import torch

        torch.save(self._task.state_dict(), Path(checkpoint_dir) / "state.pt")

    def load_checkpoint(self, checkpoint: str) -> None:
        """The inverse; not needed here."""
        raise NotImplementedError


def _space(intervals: str, trial: Trial) -> Mapping[str, Any]:
    scripted.suggest(trial)
    return {"intervals": intervals}


class TimedOptunaSearch(OptunaSearch):
    """Notes when the first trial was handed out and the last one ended."""

    started: list[float]
    ended: list[float]

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """As ever."""
        suggestion = super().suggest(trial_id)
        if suggestion is not None:
            self.started.append(time.time())
        return suggestion

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """As ever."""
        super().on_trial_complete(trial_id, result, error)
        self.ended.append(time.time())


def stock(folder: Path, num_candidates: int) -> Use:
    """The same candidates and rungs by Ray Tune alone."""
    intervals = folder / "intervals"
    intervals.mkdir()

    search = TimedOptunaSearch(space=partial(_space, str(intervals)), metric="val_loss", mode="min", seed=0)
    search.started, search.ended = [], []
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
        tuner = tune.Tuner(
            tune.with_resources(StockTrainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                num_samples=num_candidates,
                search_alg=search,
                scheduler=ASHAScheduler(
                    max_t=END // EVAL_EVERY, grace_period=GATE // EVAL_EVERY, reduction_factor=END // GATE
                ),
            ),
            run_config=tune.RunConfig(name="stock", storage_path=str(folder), verbose=0),
        )
        tuner.fit()
    finally:
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)
    spans = [json.loads(line) for path in intervals.iterdir() for line in path.read_text().splitlines()]
    busy = sum(end - began for began, end in spans)
    last = max(search.ended)
    return Use(len(search.started), busy, last - min(search.started), last - min(began for began, _ in spans))


def body(house: Use, tune_alone: Use) -> str:
    """The section of RESULTS.md."""
    rows = [
        (
            name,
            use.jobs,
            f"{use.busy_s:.0f}",
            f"{use.wall_s:.0f}",
            f"{use.slot_use:.0%}",
            f"{use.once_up:.0%}",
            f"{use.slot_use / tune_alone.slot_use:.2f}",
        )
        for name, use in (("tune-rh", house), ("stock Ray Tune: ASHAScheduler, OptunaSearch", tune_alone))
    ]
    header = ("side", "jobs or trials", "training, s", "wall, s", "slot use", "once workers are up", "ratio")
    return f"{table(header, rows)}\n\n{_explanation(house)}"


def _explanation(house: Use) -> str:
    reached = "reached" if house.slot_use >= GOAL else "missed"
    return (
        f"{SLOTS} slots of one core. Slot use: training and evaluation / (slots x wall time from the first job handed "
        f"out to the last one ended). Goal: {GOAL:.0%}, {reached} in this run ({house.slot_use:.0%}).\n\n"
        "tune-rh starts its workers before it hands out the first job, so their start is not in its wall time; stock "
        "Tune starts them with its first trials. `once workers are up` leaves the start out on both sides: compare "
        "that column. A trial of the stock side is one or both jobs of a candidate."
    )


def main() -> int:
    """Measure both sides, ours first."""
    parser = argparse.ArgumentParser(description="Slot use beside stock Ray Tune.")
    parser.add_argument("--candidates", type=int, default=36)
    arguments = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    with tempfile.TemporaryDirectory(prefix="bench-slots-") as folder:
        house = ours(Path(folder), arguments.candidates)
        print(house, flush=True)
        tune_alone = stock(Path(folder), arguments.candidates)
    machine = hardware("ray", "optuna", "torch")
    record(TITLE, "python -m benchmarks.bench_slots", machine, body(house, tune_alone))
    return 0


if __name__ == "__main__":
    sys.exit(main())
