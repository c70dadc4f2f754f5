"""Zeta zeros a second, as a ratio to flint's own certified zeros measured in the same run.

Times the making of the first 100,000 zeros and, unless ``--quick``, of all 2,001,052, into an empty folder: solver,
flint's first 1,000, files and the checks of counts together. Errors are against flint on samples at both ends.

What it is not: a test. Nothing fails here for being slow.

    python benchmarks/bench_zeros.py
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import flint
import numpy as np

from trainables.spacing_mdn.data import riemann_siegel, zeros

_SAMPLE = 50  # zeros that flint computes at each place


@dataclass(frozen=True)
class Row:
    """One line of the table: ``count`` zeros made in ``time_s``, flint's time for one near the middle and the top."""

    count: int
    time_s: float
    flint_one_s: float
    max_error: float

    def line(self) -> str:
        """As Markdown; flint's whole time is extrapolated from its samples."""
        flint_s = self.count * self.flint_one_s
        rate = self.count / self.time_s
        ours = f"| {self.count:,} | {self.time_s:.1f} | {rate:,.0f} "
        return ours + f"| {flint_s:,.0f} | {flint_s / self.time_s:,.0f} | {self.max_error:.1e} |"


def compare(made: np.ndarray, first: int) -> tuple[float, float]:
    """Largest error, rounding to float64 included, of a sample from zero ``first``, and flint's seconds for one."""
    with flint.ctx.workprec(96):
        start = time.perf_counter()
        exact = flint.acb.zeta_zeros(first, _SAMPLE)
        one_s = (time.perf_counter() - start) / _SAMPLE
        sample = made[first - 1 : first - 1 + _SAMPLE].tolist()
        return max(abs(float(flint.arb(a) - b.imag)) for a, b in zip(sample, exact, strict=True)), one_s


def measure(count: int) -> Row:
    """Make ``count`` zeros in an empty folder and compare samples."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        made = zeros.ordinates(count, Path(folder))
        time_s = time.perf_counter() - start
    places = (riemann_siegel.FIRST_ZERO, 2_950, count // 4, count // 2, 3 * count // 4, count - _SAMPLE + 1)
    errors, times = zip(*(compare(made, first) for first in places), strict=True)
    # The three inner samples and the last stand for the whole; the low ones are there for the error.
    return Row(count, time_s, sum(times[2:]) / 4, max(errors))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the first 100,000 zeros")
    quick = parser.parse_args().quick
    print(f"{datetime.date.today()}, {_cpu()} ({os.cpu_count()} cores), Python {platform.python_version()}, ", end="")
    print(f"numpy {np.__version__}, python-flint {flint.__version__}\n")
    print("| zeros | s | zeros/s | flint, s (extrapolated) | ratio | max error against flint |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count in (100_000,) if quick else (100_000, 2_001_052):
        print(measure(count).line(), flush=True)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
