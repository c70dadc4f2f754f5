"""What the sixteen diagnostics of a spacing model cost: wall time, CPU time and memory, all in one process.

One after the other in the order of reports, on one untrained model of preset e4 over the data set first100k, with two
threads. What a diagnostic costs does not hang on what the weights are; what it finds does, and is not looked at.
Diagnostics share work (the sweep along the split, keys and values of the sampled windows): it counts for the first that
asks. Goals: 180 s and 4 GiB for all of them.

The data set has to be there: `tune-rh data make spacing_mdn first100k`.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import torch

from analysis.diagnose.registry import diagnose, diagnostics_of
from analysis.diagnose.subject import Subject, draw_sample
from benchmarks.results import hardware, record, table
from trainables.registry import build_config, get_family, resolve

FAMILY, PRESET, DATA = "spacing_mdn", "e4", "first100k"
TITLE = "Sixteen diagnostics on one e4"
THREADS = 2
SEED = 42


def untrained(data_dir: Path) -> Subject:
    """A model as its seed makes it, and its sampled windows."""
    family = get_family(FAMILY)
    config = build_config(family, {"data": DATA}, preset=PRESET)
    task = resolve(family.task)(config, seed=SEED, device="cpu", data_dir=data_dir)
    task.model.eval()
    return Subject("untrained", FAMILY, config, SEED, task, draw_sample(FAMILY, task), data_dir)


def costs(subject: Subject) -> list[tuple[str, float, float, str]]:
    """Title, wall seconds, CPU seconds of all threads, and verdict of each diagnostic."""
    rows: list[tuple[str, float, float, str]] = []
    for diagnostic in diagnostics_of(FAMILY).values():
        wall, cpu = time.perf_counter(), time.process_time()
        (finding,) = diagnose(subject, [diagnostic.name])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows.append((diagnostic.title, wall, cpu, finding.verdict))
        print(f"{diagnostic.title}: {wall:.1f} s, {cpu:.1f} CPU s", flush=True)
    return rows


def body(rows: list[tuple[str, float, float, str]], windows: int, load: float) -> str:
    """The section of RESULTS.md."""
    wall, cpu = sum(row[1] for row in rows), sum(row[2] for row in rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
    cells = [(title, f"{seconds:.1f}", f"{busy:.1f}") for title, seconds, busy, _ in rows]
    cells.append(("all", f"{wall:.1f}", f"{cpu:.1f}"))
    without = sum(verdict == "no_evidence" for *_, verdict in rows)
    return (
        f"{table(('diagnostic', 'wall, s', 'CPU, s'), cells)}\n\n"
        f"{windows} sampled windows, {THREADS} threads, load {load:.1f} when it began; peak memory {peak:.2f} GiB, "
        f"data and libraries included; {without} of {len(rows)} had nothing to judge from. Goals: 180 s and 4 GiB. CPU "
        "seconds hang less than wall seconds on what else the machine does, and count threads that wait spinning."
    )


def main() -> int:
    """Time every diagnostic once."""
    parser = argparse.ArgumentParser(description="What the diagnostics of one spacing model cost.")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("TUNE_RH_DATA_DIR", "data")))
    data_dir = parser.parse_args().data_dir.absolute()
    load = os.getloadavg()[0]
    torch.set_num_threads(THREADS)
    subject = untrained(data_dir)
    rows = costs(subject)
    record(
        TITLE,
        "python -m benchmarks.bench_diagnostics",
        hardware("torch", "numpy"),
        body(rows, len(subject.sample.starts), load),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
