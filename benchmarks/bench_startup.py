"""How long the command line takes to answer, and whether it loads torch, Ray or Optuna for that.

Commands take turns with their baselines, each in a new process; the best of several rounds is shown, because every
disturbance only adds. Goals: below 0.3 s for the help, below 1 s for a dry run of the quickstart and for its preflight
without the trial round trip, below 10 s with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from benchmarks.results import hardware, record, table

HEAVY = ("torch", "ray", "optuna")
TITLE = "Start of the command line"
CASES = {
    "`tune-rh --help`": ("--help",),
    "`tune-rh search quickstart --dry-run`": ("search", "quickstart", "--dry-run"),
    "`tune-rh preflight quickstart --no-trial`": ("preflight", "quickstart", "--no-trial"),
    "`tune-rh preflight quickstart`": ("preflight", "quickstart"),
    "baseline: an empty Python program": "pass",
    "baseline: `import optuna`": "import optuna",
    "baseline: `import torch`": "import torch",
    "baseline: `import ray.tune`": "import ray.tune",
}
# As a user's shell has it: the bytecode of an editable install is kept, too.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_LOADED = """
import sys
from tune_rh.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def command(case: str | tuple[str, ...]) -> list[str]:
    """The process of a case: code, or words for tune-rh."""
    if isinstance(case, str):
        return [sys.executable, "-c", case]
    return [sys.executable, "-m", "tune_rh", *case]


def seconds(words: list[str]) -> float:
    """Wall time of one process, which has to succeed."""
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_ENVIRONMENT)
    return time.perf_counter() - start


def loaded(words: tuple[str, ...]) -> str:
    """Which of the heavy packages a command loads."""
    code = _LOADED.format(heavy=HEAVY)
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return ran.stderr.rpartition("loaded:")[2].strip() or "none"


def body(best: dict[str, float]) -> str:
    """The section of RESULTS.md."""
    slowest = best["baseline: `import ray.tune`"]
    rows = [
        (
            name,
            f"{best[name]:.2f}",
            f"{best[name] / slowest:.2f}",
            loaded(case) if isinstance(case, tuple) else "",
        )
        for name, case in CASES.items()
    ]
    header = ("process", "best, s", "ratio to `import ray.tune`", "loads of torch, ray, optuna")
    return f"{table(header, rows)}\n\nGoals: 0.3, 1, 1 and 10 s, and none of the three loaded by any but the last."


def main() -> int:
    """Time every case in turns."""
    parser = argparse.ArgumentParser(description="How long the command line takes to answer.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds(command(("data", "spacing_mdn", "--size", "first100k")))
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, case in CASES.items():
            times[name].append(seconds(command(case)))
    best = {name: min(values) for name, values in times.items()}
    record(TITLE, "python -m benchmarks.bench_startup", hardware("ray", "optuna", "torch"), body(best))
    return 0


if __name__ == "__main__":
    sys.exit(main())
