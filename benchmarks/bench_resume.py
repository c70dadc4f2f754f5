"""How much processor time a driver takes from `tune-rh resume` to its first job, in a run of about 1,000 members.

The run lies on disk as a search that was killed leaves it: journal, a folder with checkpoints a member, study.db,
TensorBoard. Every case is a new process, on a copy, that ends with its first job. The baseline brings study.db and
TensorBoard up to date before that job, as a driver has to that does so in the thread of the search.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.results import hardware, record, table
from trainables.worker.report import Evaluated, Tested
from tune_rh.decide.scheduler import RunMember
from tune_rh.record.events import Event, JobStarted, MemberId
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.run import execute, runner, runs
from tune_rh.run.family_source import family_source
from tune_rh.run.session import Session
from tune_rh.watch.follower import catch_up

TITLE = "Resume of a large run"
NUM_MEMBERS = 1_000
EVERY = 2
GOAL_S = 5.0
CASES = {
    "study.db and TensorBoard as they were left": (),
    "study.db and TensorBoard lost": ("study.db", "tensorboard"),
}


class _Enough(Exception):
    """The run has the members that it is to have."""


def make_run(root: Path, num_members: int) -> RunPaths:
    """A run that was killed once it had so many members, each with its reports and two checkpoints."""
    from tests.worlds import plans  # not where a driver is measured: it loads hypothesis

    plan = plans.plan(num_candidates=10**6, sampler={"name": "random"}, eval_every=EVERY)
    paths = runs.create(plan, root, root.parent)
    run = runs.open_run(paths, root.parent)
    fsync, os.fsync = os.fsync, lambda _descriptor: None
    journal = run.journal
    session = Session(
        plan, run.history, journal.hold, family_source(plan), time.time, runner="local", slots=1, commit=journal.commit
    )
    try:
        while True:
            job = session.next_job()
            assert isinstance(job, RunMember)
            if job.purpose == "test":
                session.on_report(Tested(job.member, job.until_step, _metrics(job.member, job.until_step), 0.1))
            else:
                _train(session, job.member, num_members)
    except _Enough:
        run.journal.close()
    finally:
        os.fsync = fsync
    for member in _members(run.history):
        for step in {member.step - EVERY, member.step} - {-EVERY, 0}:
            (paths.member(member.id) / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    catch_up(run.history, runner.views(run), print)
    return paths


def _members(history: History) -> list[Any]:
    return [member for candidate in history.candidates.values() for member in candidate.members.values()]


def _train(session: Session, member: MemberId, num_members: int) -> None:
    state = session.history.member(member)
    goes_on = True
    while goes_on:
        step = state.step + EVERY
        if state.step == session.plan.stages[-1].until_step:
            goes_on = session.on_report(Tested(member, state.step, _metrics(member, state.step), 0.1))
        else:
            goes_on = session.on_report(Evaluated(member, step, _metrics(member, step), 1.0, 0.1))
        if goes_on and len(_members(session.history)) >= num_members:
            raise _Enough


def _metrics(member: MemberId, step: int) -> dict[str, float]:
    level = 0.5 + hash((member.seed, int(member.candidate[1:]))) % 1000 / 1000
    loss = level + math.exp(-step / 40)
    return {"val_loss": loss, "train_loss": loss, "test_loss": loss, "health": level, "lr": 0.1}


class _FirstJob:
    """The audience of a driver that ends with its first job."""

    def say(self, line: str) -> None:
        print(line, file=sys.stderr)

    @contextmanager
    def bar(self, title: str) -> Iterator[Any]:
        raise AssertionError(title)

    @contextmanager
    def follow(self, history: History) -> Iterator[Any]:
        yield self._watch

    def _watch(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            print(time.process_time(), flush=True)
            os._exit(0)


def drive(root: Path, *, views_first: bool) -> None:
    """Resume a run and end with its first job: the process' seconds so far are printed."""
    paths = RunPaths(root)
    if views_first:
        run = runs.open_run(paths, root.parent)
        before = time.process_time()
        catch_up(run.history, runner.views(run), print)
        print(time.process_time() - before, end=" ")
        run.journal.close()
    execute.execute(paths, execute.Place(root.parent, "local"), _FirstJob(), lambda *_: None)


def seconds(paths: RunPaths, lost: tuple[str, ...], *, views_first: bool) -> list[float]:
    """What one process on a copy of the run printed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(shutil.copytree(paths.root, Path(folder) / "run"))
        for name in lost:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        words = [sys.executable, "-m", "benchmarks.bench_resume", "--drive", str(root)]
        words += ["--views-first"] if views_first else []
        ran = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return [float(word) for word in ran.stdout.split()]


def body(paths: RunPaths, rounds: int) -> str:
    """The section of RESULTS.md."""
    rows = []
    for name, lost in CASES.items():
        beside = min(seconds(paths, lost, views_first=False)[0] for _ in range(rounds))
        views = min(seconds(paths, lost, views_first=True)[0] for _ in range(rounds))
        rows.append((name, f"{beside:.1f}", f"{beside + views:.1f}", f"{(beside + views) / beside:.1f}"))
    header = ("run", "views beside the search, CPU s", "views before the first job, CPU s", "ratio")
    _, history = runs.replay(paths)
    num_events = len(paths.journal.read_bytes().splitlines())
    facts = f"{len(_members(history)):,} members, {num_events:,} events"
    return f"{facts}; the best of {rounds} rounds, imports included.\n\n{table(header, rows)}\n\nGoal: {GOAL_S:g} s."


def main() -> int:
    """All cases, or one process of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=NUM_MEMBERS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--views-first", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        drive(args.drive, views_first=args.views_first)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        paths = make_run(Path(folder) / "run", args.members)
        text = body(paths, args.rounds)
    record(TITLE, "python -m benchmarks.bench_resume", hardware("optuna", "tensorboardX", "torch"), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
