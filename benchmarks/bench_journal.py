"""What it takes to open a run whose journal has a million events: with its snapshot, and by folding the journal.

A run of scripted members is written as a session writes it, without waiting for the disk: 20 config fields, 8 metrics a
report. Each opening is a new process, imports included, with the journal in the page cache; the baseline folds the same
journal. `read` is what `status` and `report` begin with, `open` what `resume` begins with, `status` the whole command.
Then reports are taken in while a second thread writes a snapshot over and over, as a session's follower does at times.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

from benchmarks.results import hardware, record, table
from tune_rh.record.journal import Mark, RunPaths
from tune_rh.record.snapshot import file as snapshot
from tune_rh.results.reading import read
from tune_rh.run import runs

TITLE = "A long journal"
NUM_EVENTS = 1_000_000
STAGES = [{"until_step": 50, "num_seeds": 1}, {"until_step": 150, "num_seeds": 2}, {"until_step": 500, "num_seeds": 2}]
GOAL = "Goal: 3 s and 1 GiB with the snapshot."


def make_run(root: Path, num_events: int) -> RunPaths:
    """A run with at least so many events, written by a session."""
    from benchmarks.bench_decisions import Drive  # they load hypothesis, and no process that is measured needs it
    from tests.worlds import plans
    from tune_rh.record.events import CandidateAdded, MemberId, encode
    from tune_rh.record.history import History
    from tune_rh.record.journal import Chain

    plan = plans.plan(num_candidates=10**6, sampler={"name": "random"}, eval_every=1, stages=STAGES)
    paths = runs.create(plan, root, root.parent)
    chain = Chain.after(paths.journal.read_bytes())

    class Written(Drive):
        def candidate(self, history: History) -> CandidateAdded:
            added = super().candidate(history)
            config = {f"field_{i}": i / 7 for i in range(19)} | dict(added.config)
            return CandidateAdded(added.candidate, config, added.config_digest, added.origin)

        def _commit(self) -> None:
            file.write(b"".join(chain.seal(encode(event)) for event in self._events))
            self._events.clear()

        def _metrics(self, member: MemberId, step: int) -> dict[str, float]:
            metrics = super()._metrics(member, step)
            return metrics | {f"metric_{i}": i + metrics["val_loss"] for i in range(5)}

    with paths.journal.open("ab") as file:
        drive, num_candidates = Written(plan), 0
        while chain.seq < num_events:
            num_candidates += 100
            drive.until(num_candidates)
    return paths


def save(paths: RunPaths) -> float:
    """Write the run's snapshot; the seconds that took."""
    _, history = runs.replay(paths)
    start = time.perf_counter()
    prefix = snapshot.Prefix(paths.journal)
    prefix.advance(history.num_events)
    assert snapshot.save(history, prefix, paths), "no key can be kept here"
    return time.perf_counter() - start


def opened(how: str, paths: RunPaths) -> list[float]:
    """CPU seconds, seconds and MiB of a new process that opens the run."""
    words = [sys.executable, "-m", "benchmarks.bench_journal", "--how", how, "--run", str(paths.root)]
    ran = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return [float(word) for word in ran.stdout.splitlines()[-1].split()]


def once(how: str, paths: RunPaths) -> None:
    """Open the run in this process, and print what that took."""
    start = time.perf_counter() - time.process_time()
    if how == "read":
        read(paths)
    elif how == "open":
        runs.open_run(paths, paths.root.parent).journal.close()
    else:
        from tune_rh.cli.main import main as command

        command(["status", paths.root.name, "--runs-dir", str(paths.root.parent)])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"\n{time.process_time():.2f} {time.perf_counter() - start:.2f} {usage.ru_maxrss / 1024:.0f}")


def reports(paths: RunPaths, beside: Callable[[], object] | None, num: int = 3_000) -> list[float]:
    """Milliseconds of each of so many reports to a journal, while ``beside`` is called over and over in a thread."""
    from benchmarks.bench_decisions import Drive
    from tests.worlds import plans
    from tune_rh.record.journal import Journal

    took: list[float] = []
    with tempfile.TemporaryDirectory(dir=paths.root) as folder:
        journal = Journal(Path(folder) / "journal.jsonl")

        class Timed(Drive):
            def _commit(self) -> None:
                start = time.perf_counter()
                for event in self._events:
                    journal.hold(event)
                journal.commit()
                self._events.clear()
                took.append(1e3 * (time.perf_counter() - start))

        ended = threading.Event()

        def follow() -> None:
            while beside is not None and not ended.is_set():
                beside()

        thread = threading.Thread(target=follow)
        drive, size = Timed(plans.plan(num_candidates=10**6)), 0
        thread.start()
        while len(took) < num:
            size += 10
            drive.until(size)
        ended.set()
        thread.join()
        journal.close()
    return took


def body(paths: RunPaths, rounds: int) -> str:
    """The section of RESULTS.md."""
    folded = {how: opened(how, paths) for how in ("read", "open", "status")}
    seconds = save(paths)
    size = paths.snapshot.stat().st_size / 2**20
    kept = {how: min(opened(how, paths) for _ in range(rounds)) for how in folded}
    rows = [
        (how, *(f"{x:.1f}" for x in (*kept[how][:2], *before[:2], before[0] / kept[how][0])), *_mib(kept[how], before))
        for how, before in folded.items()
    ]
    header = (
        "opening", "CPU s", "s", "folded, CPU s", "folded, s", "ratio of CPU s", "MiB", "folded, MiB",
    )  # fmt: skip
    mark = Mark()
    _, history = runs.replay(paths, mark=mark)
    prefix = snapshot.Prefix(paths.journal)
    prefix.advance(history.num_events)
    alone = reports(paths, None)
    beside = reports(paths, lambda: snapshot.save(history, prefix, paths))
    num_members = sum(len(candidate.members) for candidate in history.candidates.values())
    return (
        f"{history.num_events:,} events, {len(history.candidates):,} candidates, {num_members:,} members, a journal of "
        f"{mark.position / 2**20:.0f} MiB.\n\n{table(header, rows)}\n\n{GOAL} The snapshot has {size:.0f} MiB and was "
        f"written in {seconds:.1f} s.\n\n{table(_PAUSES, [_pauses('alone', alone), _pauses('beside', beside)])}\n\n"
        "Beside: while a thread writes that snapshot without a pause. A session does so once for every twentieth of "
        "its events."
    )


_PAUSES = ("a report's wait for the journal, ms", "median", "99 of 100", "longest")


def _pauses(name: str, took: Sequence[float]) -> tuple[str, ...]:
    return name, *(f"{x:.2f}" for x in (median(took), quantiles(took, n=100)[-1], max(took)))


def _mib(kept: Sequence[float], folded: Sequence[float]) -> tuple[str, str]:
    return f"{kept[2]:.0f}", f"{folded[2]:.0f}"


def main() -> int:
    """All of it, or one opening."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=NUM_EVENTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.how:
        once(args.how, RunPaths(args.run))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        paths = make_run(Path(folder) / "run", args.events)
        text = body(paths, args.rounds)
    record(TITLE, "python -m benchmarks.bench_journal", hardware("pydantic"), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
