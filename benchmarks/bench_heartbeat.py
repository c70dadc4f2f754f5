"""What a heartbeat costs beside a step of `shared_moe`'s preset ``cpu-tiny``, in CPU time of the same process.

The steps and what watches them take turns, so that whatever else the machine does falls on both. Half of the
steps are watched as a member is by default, on the others every step beats.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.bench_moe import DISPATCH, config_of, model_step
from benchmarks.results import hardware, record, table
from trainables.worker.allocator import keep_freed_memory
from trainables.worker.health import TrainingHealth
from trainables.worker.heartbeat import Heart
from trainables.worker.job import MemberJob
from trainables.worker.report import MemberId
from tune_rh.plan.rules import LiveRules

TITLE, GOAL = "Heartbeat", 0.01
_CALLS = 100
"""Calls in a turn: one takes microseconds, and a clock not much less."""


def heart(folder: Path, beat_every: int) -> Heart:
    """What watches a member of the family, as a worker makes it."""
    member, gates = MemberId("c0000", 1), (10_000,)
    folder.mkdir(parents=True)
    digest, paths = "d" * 64, (str(folder), str(folder))
    job = MemberJob(
        member, "shared_moe", {}, digest, *paths, "eval_loss", "min", 500, gates, "", "1.1", beat_every=beat_every
    )
    return Heart(job, TrainingHealth(), {"balance_entropy", "max_vio", "dead_share"})


def seconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def main() -> int:
    """Measure on the CPU."""
    parser = argparse.ArgumentParser(description="What a heartbeat costs beside a step.")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    (take,) = model_step(DISPATCH, config_of("cpu-tiny")).phases
    every = LiveRules().beat_every
    steps, watched = [], {every: list[float](), 1: list[float]()}
    with tempfile.TemporaryDirectory() as folder:
        hearts = {each: heart(Path(folder) / "run" / "members" / f"c{each}", each) for each in watched}
        metrics = {"train_loss": 5.0, "grad_norm": 1.0, "lr": 1e-3, "aux_coef": 0.01}
        for turn in range(arguments.rounds + 1):
            spent = seconds(take)
            if turn:  # in the first, kernels are chosen
                steps.append(spent)
            for each, one in hearts.items():
                first = turn * _CALLS + 1

                def call(one: Heart = one, first: int = first) -> None:
                    for step in range(first, first + _CALLS):
                        one.on_step(step, {**metrics, "tokens": 1024.0 * step})

                watched[each].append(seconds(call) / _CALLS)
    step = statistics.median(steps)
    shares = {each: statistics.median(values) / step for each, values in watched.items()}
    rows = [
        (f"a beat every {each} steps" if each > 1 else "a beat every step", f"{step * share * 1e6:.1f}", f"{share:.3%}")
        for each, share in shares.items()
    ]
    reached = "reached" if max(shares.values()) < GOAL else "not reached"
    body = (
        f"{table(('watched with', 'microseconds a step', 'of a step'), rows)}\n\n"
        f"A step of `cpu-tiny` takes {step * 1e3:.1f} ms of CPU time; medians of {arguments.rounds} rounds. Rules, the "
        f"memory's state and the line on the disk are in it. Goal: under {GOAL:.0%} of a step, {reached} in this run."
    )
    record(TITLE, "python -m benchmarks.bench_heartbeat", hardware("torch"), body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
