"""Microseconds to take one report in and to decide what follows, against how many candidates the history holds.

A simulated search with closed-form curves is driven to so many candidates; then the reports of the next ones are
timed: the event into the history, the verdict, and where a job ends, the next job with its promotions. One search
has gates alone, one every rule that a plan can have, one weighs what runs next by the value of information. The
journal's part (encode, write, fsync) is timed apart, on the same events: committed step by step as a session does, and
line by line.

The baseline is `AsyncHyperBandScheduler.on_trial_result` of Ray Tune, which looks at one trial a report, with as many
trials recorded in its rungs. Goal: the cost grows no faster than log n.

The stretches are tens of milliseconds, so time is CPU time of the thread, and the median over rounds in which all
sides take turns; only the journal, which waits for the disk, is timed by the clock. Python's garbage collector is off:
whether its next pass over the whole history falls into a stretch is chance. `bench_simulate --scale` has what it costs.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from benchmarks.results import hardware, record, table
from tests.worlds import plans
from tune_rh.decide.scheduler import AskFollowUp, RunMember
from tune_rh.plan.schema import Plan
from tune_rh.record.events import CandidateAdded, Evaluated, Event, MemberId, Tested
from tune_rh.record.history import History
from tune_rh.record.journal import Journal
from tune_rh.record.members import candidate_id
from tune_rh.run.session import Session

SIZES = (100, 1_000, 10_000)
TIMED_CANDIDATES = 100
ROUNDS = 5
TITLE = "Cost of a decision"
_RULES = {
    "promote": {"margin": 0.4, "tolerance": 0.5, "healthier": [{"metric": "health", "factor": 1.1}]},
    "stop": {"delta": 0.001, "window": 3},
    "patience_steps": 100,
    "gap": {"first": 0.4, "widening": 0.5},
    "health": [{"metric": "health", "at_least": 0.1}],
}
_CLOSE = {"band": 0.3, "extra_seeds": 0.2}
_STEPS = [{"until_step": step, "num_seeds": num} for step, num in ((20, 1), (40, 1), (60, 1), (90, 1), (120, 2))]


class _Enough(Exception):
    """The next candidate would be one too many."""


class Drive:
    """A session with one slot, whose members report a curve of their own; one in 50 reports is a divergence."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.steps: list[list[Event]] = []
        self._events: list[Event] = []
        self.num_reports = 0
        self.seconds = 0.0
        self._most = 0
        self._random = random.Random(0)
        self._levels: list[tuple[float, float]] = []
        self._session = Session(
            plan,
            History(plan),
            self._events.append,
            self,
            lambda: 0.0,
            runner="benchmark",
            slots=1,
            commit=self._commit,
        )

    def until(self, num_candidates: int) -> None:
        """Go on until the next candidate would be one too many."""
        self._most = num_candidates
        with suppress(_Enough):
            while True:
                start = time.thread_time()
                try:
                    job = self._session.next_job()
                finally:
                    self.seconds += time.thread_time() - start
                assert isinstance(job, RunMember)
                if job.purpose == "test":
                    self._session.on_report(Tested(job.member, job.until_step, {"test_loss": 0.0}, 0.0))
                else:
                    self._train(job.member)

    def candidate(self, history: History) -> CandidateAdded:
        """See `tune_rh.run.session.Source`."""
        if len(history.candidates) >= self._most:
            raise _Enough
        index = len(self._levels)
        self._levels.append((self._random.uniform(0.5, 1.5), self._random.uniform(0.5, 1.5)) if index else (1.0, 1.0))
        return CandidateAdded(
            candidate_id(index), {"floor": index}, f"digest-{index}", "sampler" if index else "control"
        )

    def follow_up(self, history: History, asked: AskFollowUp) -> CandidateAdded:
        """Never asked: the plans have none."""
        raise AssertionError(asked)

    def _commit(self) -> None:
        if self._events:
            self.steps.append(self._events.copy())
            self._events.clear()

    def _train(self, member: MemberId) -> None:
        state, goes_on = self._session.history.member(member), True
        while goes_on and state.status == "running":
            diverged = self._random.random() < 0.02
            step = state.step + self.plan.eval_every
            report = Evaluated(member, step, self._metrics(member, step), 1.0, 0.0, diverged)
            self.num_reports += 1
            start = time.thread_time()
            goes_on = self._session.on_report(report)
            self.seconds += time.thread_time() - start
        if goes_on:  # to the reading of test
            self._session.on_report(Tested(member, state.step, {"test_loss": 0.0}, 0.0))

    def _metrics(self, member: MemberId, step: int) -> dict[str, float]:
        level, health = self._levels[int(member.candidate[1:])]
        loss = level + math.exp(-step / 40) + self._random.gauss(0, 0.01)
        return {"val_loss": loss, "train_loss": loss, "health": health}


def ours(sizes: Sequence[int], **changes: Any) -> tuple[list[float], list[list[Event]], int]:
    """Microseconds a report at each size; the steps of the last timed stretch and how many of them are reports."""
    drive = Drive(plans.plan(num_candidates=10**6, **changes))
    costs = []
    for size in sizes:
        drive.until(size - TIMED_CANDIDATES // 2)
        drive.num_reports, drive.seconds = 0, 0.0
        drive.steps.clear()
        drive.until(size + TIMED_CANDIDATES // 2)
        costs.append(1e6 * drive.seconds / drive.num_reports)
    return costs, drive.steps, drive.num_reports


def with_journal(steps: Sequence[Sequence[Event]], num_reports: int) -> float:
    """Microseconds of the journal a report: all events, encoded, written and synced step by step."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        start = time.perf_counter()
        for events in steps:
            for event in events:
                journal.hold(event)
            journal.commit()
        seconds = time.perf_counter() - start
        journal.close()
    return 1e6 * seconds / num_reports


def rays(sizes: Sequence[int]) -> list[float]:
    """Microseconds a report of Ray's ASHA at each size: the same gates, curves of the same kind."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

    scheduler = AsyncHyperBandScheduler(
        time_attr="t", metric="val_loss", mode="min", max_t=12, grace_period=2, reduction_factor=3
    )
    rng = random.Random(0)
    num_trials = num_reports = 0
    seconds = 0.0

    def until(count: int) -> None:
        nonlocal num_trials, num_reports, seconds
        while num_trials < count:
            trial: Any = SimpleNamespace(trial_id=f"{num_trials:06d}")
            scheduler.on_trial_add(None, trial)
            num_trials += 1
            level = rng.uniform(0.5, 1.5)
            for t in range(1, 13):
                result = {"t": t, "val_loss": level + math.exp(-t / 4) + rng.gauss(0, 0.01)}
                start = time.thread_time()
                said = scheduler.on_trial_result(None, trial, result)
                seconds += time.thread_time() - start
                num_reports += 1
                if said == TrialScheduler.STOP:
                    break

    costs = []
    for size in sizes:
        until(size - TIMED_CANDIDATES // 2)
        num_reports, seconds = 0, 0.0
        until(size + TIMED_CANDIDATES // 2)
        costs.append(1e6 * seconds / num_reports)
    return costs


def growth(costs: Sequence[float], sizes: Sequence[int]) -> float:
    """The exponent p of the least-squares fit cost ~ n^p."""
    x = [math.log(size) for size in sizes]
    y = [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def body(sides: dict[str, list[float]], sizes: Sequence[int], num_rounds: int) -> str:
    """The section of RESULTS.md."""
    baseline = sides["Ray's AsyncHyperBandScheduler"]
    rows = [
        (
            name,
            *(f"{cost:.0f}" for cost in costs),
            f"{costs[-1] / costs[0]:.2f}",
            f"{growth(costs, sizes):+.2f}",
            f"{costs[-1] / baseline[-1]:.2f}",
        )
        for name, costs in sides.items()
    ]
    header = ("us a report, with candidates:", *(f"{n:,}" for n in sizes), "growth", "fit n^p", "ratio to Ray's")
    allowed = math.log(sizes[-1]) / math.log(sizes[0])
    return (
        f"{table(header, rows)}\n\nGrowth: the last size over the first; log n would grow {allowed:.2f}-fold (goal: no "
        f"faster). p is fitted over all sizes. The mean over all reports of {TIMED_CANDIDATES} candidates; starts, "
        "ends and promotions included (Ray's: a trial a candidate, no promotions); CPU time without garbage "
        f"collection, median of {num_rounds} rounds. The journal's part is what its appends cost on top by the clock, "
        "fsync included: it is the disk's. Goals with 10,000 candidates: 60 us for gates, 100 for gates that learn, "
        "2,000 for the value of information."
    )


def _round() -> dict[str, list[float]]:
    gates, _, _ = ours(SIZES)
    close, _, _ = ours(SIZES, seeds=[7, 42, 1337, 2024], scoring=_CLOSE)
    learning, _, _ = ours(SIZES, gates="adaptive", budget={"max_steps": 10**9})
    value, _, _ = ours(SIZES, scheduler="value", budget={"max_steps": 10**9}, stages=_STEPS)
    rules, steps, num_reports = ours(SIZES, rules=_RULES)
    journal = with_journal(steps, num_reports)
    by_line = with_journal([[event] for events in steps for event in events], num_reports)
    return {
        "gates": gates,
        "gates, a band and seeds near the cut": close,
        "gates that learn, and plan a budget": learning,
        "the value of information, over five stages": value,
        "gates and every rule": rules,
        "the same with the journal": [cost + journal for cost in rules],
        "the same with the journal, synced line by line": [cost + by_line for cost in rules],
        "Ray's AsyncHyperBandScheduler": rays(SIZES),
    }


def main() -> int:
    """Drive and time all sides, in turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_decisions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    gc.disable()
    rounds = [_round() for _ in range(args.rounds)]
    sides = {
        name: [median(costs) for costs in zip(*(sides[name] for sides in rounds), strict=True)] for name in rounds[0]
    }
    option = "" if args.rounds == ROUNDS else f" --rounds {args.rounds}"
    command = f"python -m benchmarks.bench_decisions{option}"
    record(TITLE, command, hardware("ray"), body(sides, SIZES, args.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
