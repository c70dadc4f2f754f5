"""Run every benchmark, one after another, each in a process of its own; RESULTS.md is brought up to date.

`python -m benchmarks` leaves out what takes long; `python -m benchmarks --long` runs all of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.results import hardware, record

OWN_SECTION = ("bench_startup", "bench_decisions", "bench_moe", "bench_ray_facts", "bench_heartbeat", "bench_resume")
OWN_SECTION_LONG = (
    "bench_slots",
    "bench_claims",
    "bench_planted",
    "bench_scale",
    "bench_simulate",
    "bench_samplers",
    "bench_diagnostics",
    "bench_cluster",
    "bench_equilibrium",
    "bench_journal",
    "bench_nsa",
    "bench_first_search",
)
# These print; their output becomes the section: title, module, options, packages.
PRINTED = (
    ("Zeta zeros: the first 100,000", "bench_zeros", ("--quick",), ("numpy", "python-flint")),
    ("Optimiser steps", "bench_steps", (), ("torch",)),
)
PRINTED_LONG = (("Zeta zeros: all", "bench_zeros", (), ("numpy", "python-flint")),)


def run(module: str, options: tuple[str, ...] = (), *, capture: bool = False) -> str:
    """One benchmark; returns what it printed if ``capture``."""
    words = [sys.executable, "-m", f"benchmarks.{module}", *options]
    print("+", *words[1:], flush=True)
    ran = subprocess.run(words, check=True, stdout=subprocess.PIPE if capture else None, text=True)
    return ran.stdout or ""


def main() -> int:
    """All of them; the first that fails ends it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--long", action="store_true", help="also what takes more than three minutes")
    long = parser.parse_args().long
    for module in (*OWN_SECTION, *(OWN_SECTION_LONG if long else ())):
        run(module)
    for title, module, options, packages in (*PRINTED, *(PRINTED_LONG if long else ())):
        printed = run(module, options, capture=True).strip()
        body = printed if "| --- |" in printed else f"```\n{printed}\n```"
        record(title, " ".join(("python -m", f"benchmarks.{module}", *options)), hardware(*packages), body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
