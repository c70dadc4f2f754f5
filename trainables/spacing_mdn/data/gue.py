"""The control set: bulk spacings of random Hermitian matrices (GUE), which repel as zeta zeros do and know no primes.

The matrices have 2,048 eigenvalues, of which the middle 1,025 are used, where the local density is nearly constant;
nothing approximates the sine kernel at infinite size.

Sources: I. Dumitriu and A. Edelman, Matrix models for beta ensembles, J. Math. Phys. 43 (2002): a tridiagonal matrix
with normal diagonal and chi off-diagonal has the eigenvalues of a full GUE matrix, at O(n^2) instead of O(n^3); M. L.
Mehta, Random Matrices (2004), section 4.2, for the semicircle by which they are unfolded.
"""

from __future__ import annotations

import numpy as np

from trainables.api import Progress
from trainables.arrays import Array

SIZE = 2048
"""Eigenvalues of one matrix."""
PER_MATRIX = 1024
"""Spacings taken from the middle of one matrix; a series has a seam after each run of so many."""


def spacings(count: int, seed: int, progress: Progress | None = None) -> Array:
    """``count`` unfolded spacings with mean 1: runs of `PER_MATRIX` from independent matrices, one after the other.

    Matrix k draws from a generator seeded with (seed, k), so a longer series begins with a shorter one.
    """
    runs = []
    for index, done in enumerate(range(0, count, PER_MATRIX)):
        runs.append(_run(np.random.default_rng((seed, index))))
        if progress is not None:
            progress(min(count, done + PER_MATRIX), count)
    return np.concatenate(runs)[:count]


def _run(rng: np.random.Generator) -> Array:
    """`PER_MATRIX` unfolded spacings about the centre of one matrix with weight exp(-tr H^2 / 2)."""
    from scipy.linalg import eigh_tridiagonal  # a quarter of a second, and a check of a plan needs no matrix

    diagonal = rng.normal(size=SIZE)
    # chi with 2k degrees of freedom over sqrt(2), whose square is Gamma(k)
    beside = np.sqrt(rng.gamma(np.arange(SIZE - 1, 0, -1, dtype=np.float64)))
    values = eigh_tridiagonal(diagonal, beside, eigvals_only=True, lapack_driver="sterf")
    start = (SIZE - PER_MATRIX) // 2
    x = values[start : start + PER_MATRIX + 1] / (2.0 * np.sqrt(SIZE))
    # number of eigenvalues below x under the semicircle of radius 2 sqrt(n)
    level = SIZE * (0.5 + (x * np.sqrt(1.0 - x * x) + np.arcsin(x)) / np.pi)
    result: Array = np.diff(level)
    return result
