"""False claims of A/B comparisons under the null, and their power: simulated pairs, judged as a comparison judges them.

Pairs come one by one; after each the comparison asks whether it is decided, and stops where it is. Under the null A and
B have the same distribution, so every better or worse is a false claim. The baseline is what many do by hand: a t-test
after every pair, stopped at the first p below alpha.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from analysis.stats.claims import Test, judge
from analysis.stats.student import t_quantile
from benchmarks.results import hardware, record, table

TITLE = "False claims of comparisons, and their power"
RUNS, PAIRS, ALPHA = 20_000, 8, 0.05
EFFECT = 2.0
"""Of the power column: distance of the means in standard deviations of one seed (normal seeds)."""

Noise = Callable[[random.Random], float]
NOISES: dict[str, Noise] = {
    "normal": lambda rng: rng.gauss(0.0, 1.0),
    "t, 3 df": lambda rng: rng.gauss(0.0, 1.0) / math.sqrt(rng.gammavariate(1.5, 2.0) / 3.0),
    "good one time in three": lambda rng: (0.0 if rng.random() < 1 / 3 else 1.0) + rng.gauss(0.0, 0.07),
}


def differences(noise: Noise, seed: int, effect: float = 0.0) -> list[float]:
    """B - A for every pair."""
    rng = random.Random(seed)
    return [effect + noise(rng) - noise(rng) for _ in range(PAIRS)]


def compared(values: Sequence[float], test: Test) -> tuple[bool, int]:
    """Whether better or worse is claimed, and after how many pairs it ended."""
    for num in range(2, PAIRS + 1):
        said = judge(values[:num], PAIRS, test=test, alpha=ALPHA)
        if said.decided:
            return said.verdict in ("better", "worse"), num
    return False, PAIRS


def by_hand(values: Sequence[float]) -> tuple[bool, int]:
    """A t-test after every pair."""
    for num in range(2, PAIRS + 1):
        seen = values[:num]
        if abs(fmean(seen)) > _BOUNDS[num] * stdev(seen) / math.sqrt(num):
            return True, num
    return False, PAIRS


_BOUNDS = {num: t_quantile(1 - ALPHA / 2, num - 1) for num in range(2, PAIRS + 1)}


def main() -> int:
    """Rates over all noises, for each test and for the baseline."""
    judges: dict[str, Callable[[Sequence[float]], tuple[bool, int]]] = {
        "sign flips (default)": lambda v: compared(v, "sign_flip"),
        "paired t": lambda v: compared(v, "t"),
        "e-process": lambda v: compared(v, "e_process"),
        "a t-test after every pair, by hand": by_hand,
    }
    rows = []
    for name, look in judges.items():
        null = {noise: [look(differences(draw, seed)) for seed in range(RUNS)] for noise, draw in NOISES.items()}
        real = [look(differences(NOISES["normal"], seed, EFFECT)) for seed in range(RUNS)]
        rows.append(
            (
                name,
                *(f"{fmean(claimed for claimed, _ in ends):.4f}" for ends in null.values()),
                f"{fmean(num for _, num in null['normal']):.1f}",
                f"{fmean(claimed for claimed, _ in real):.3f}",
                f"{fmean(num for _, num in real):.1f}",
            )
        )
    error = math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
    header = ("false claims, seeds are:", *NOISES, "pairs, no difference", f"power at {EFFECT:g} sd", "pairs then")
    body = (
        f"{table(header, rows)}\n\n{RUNS:,} simulated comparisons each, at most {PAIRS} pairs, alpha {ALPHA} for both "
        f"directions together, decided after each pair where the test allows it. Bound: {ALPHA} + 2 standard errors = "
        f"{ALPHA + 2 * error:.4f}. Without a difference sign flips end early where no claim can come any more."
    )
    record(TITLE, "python -m benchmarks.bench_claims", hardware(), body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
