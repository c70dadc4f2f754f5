"""The data sets of the family as arrays: computed, written and read."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flint
import numpy as np
import scipy
from numpy.typing import NDArray

from trainables.api import Progress, Split
from trainables.arrays import Array
from trainables.errors import DataCorrupt
from trainables.spacing_mdn.data import gue, zeros
from trainables.spacing_mdn.data.sets import BLOCK, LAYOUTS, UNORDERED, file_of, remedy, verified

_RECORD = np.dtype([("log_height", "<f8"), ("spacings", "<f8", (BLOCK,))])
_NUM_ZEROS = {"first100k": 100_000, "full": 2_001_052, "shuffled": 100_000}
_GUE_SEED = 20020
_ORDER_SEED = 20021


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        spacings: float64 (num_blocks * 256,), contiguous in order of height, mean near 1, read-only.
        log_height: float64 (num_blocks,), log(gamma / 2 pi) where each block starts; zeros for
            ``gue`` and ``shuffled``. Read-only.
    """

    spacings: Array
    log_height: Array

    def log_height_per_point(self) -> Array:
        """float64 (num_blocks * 256,): the log height of its block for each spacing."""
        return np.repeat(self.log_height, BLOCK)


@dataclass(frozen=True)
class SpacingData:
    """A data set in three splits, and the SHA-256 of the file it came from."""

    name: str
    train: Part
    val: Part
    test: Part
    digest: str

    def trained_on_last(self, blocks: int) -> SpacingData:
        """The same with no more of the training split than its last ``blocks``; 0 is all."""
        train = self.train
        if not blocks or blocks >= len(train.log_height):
            return self
        return replace(self, train=Part(train.spacings[-blocks * BLOCK :], train.log_height[-blocks:]))

    @property
    def whole(self) -> Part:
        """All splits as one series."""
        parts = (self.train, self.val, self.test)
        return Part(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("spacings", "log_height")))

    def start(self, split: Split) -> int:
        """Where val or test starts in `whole`."""
        below = (self.train,) if split == "val" else (self.train, self.val)
        return sum(len(part.spacings) for part in below)


def load(name: str, data_dir: Path) -> SpacingData:
    """Read a data set and check it against its side-car.

    Raises:
        DataError: no set has that name.
        DataMissing: it has not been made yet.
        DataCorrupt: its digest or its shape is not what its side-car says.
    """
    digest, content = verified(name, data_dir)
    layout = LAYOUTS[name]
    try:
        records = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise DataCorrupt(f"{file_of(name, data_dir)} is no .npy file ({error}); {remedy(name)}") from error
    if records.dtype != _RECORD or records.shape != (layout.num_blocks,):
        raise DataCorrupt(
            f"{file_of(name, data_dir)} has shape {records.shape} of {records.dtype}, expected ({layout.num_blocks},) "
            f"blocks of {BLOCK}; {remedy(name)}"
        )
    cuts = (0, layout.train, layout.train + layout.val, layout.num_blocks)
    train, val, test = (_part(records[low:high]) for low, high in itertools.pairwise(cuts))
    return SpacingData(name, train, val, test, digest)


def _part(records: NDArray[Any]) -> Part:
    spacings = records["spacings"].reshape(-1)
    log_height = np.ascontiguousarray(records["log_height"])
    spacings.flags.writeable = False
    log_height.flags.writeable = False
    return Part(spacings, log_height)


def make(name: str, folder: Path, progress: Progress | None) -> tuple[bytes, dict[str, Any]]:
    """The content of a set's file, and what its side-car says about it; zeros on the way are kept in ``folder``."""
    num_blocks = LAYOUTS[name].num_blocks
    records = np.zeros(num_blocks, dtype=_RECORD)
    if name == "gue":
        made = f"bulk GUE spacings, tridiagonal matrices of {gue.SIZE}, {gue.PER_MATRIX} from each, seed {_GUE_SEED}"
        records["spacings"] = gue.spacings(num_blocks * BLOCK, _GUE_SEED, progress).reshape(num_blocks, BLOCK)
    else:
        made = f"unfolded spacings of the first {_NUM_ZEROS[name]} zeta zeros, Riemann-Siegel with C0..C4"
        ordinates = zeros.ordinates(_NUM_ZEROS[name], folder / "zeros", progress)
        spacings = zeros.unfolded_spacings(ordinates)[: num_blocks * BLOCK]
        if name == UNORDERED:
            made += f", in the order of seed {_ORDER_SEED}"
            spacings = np.random.default_rng(_ORDER_SEED).permutation(spacings)
        else:
            records["log_height"] = np.log(ordinates[: num_blocks * BLOCK : BLOCK] / (2.0 * np.pi))
        records["spacings"] = spacings.reshape(num_blocks, BLOCK)
    buffer = io.BytesIO()
    np.save(buffer, records)
    versions = {"numpy": np.__version__, "scipy": scipy.__version__, "python-flint": flint.__version__}
    return buffer.getvalue(), {"num_blocks": num_blocks, "block": BLOCK, "made": made, "versions": versions}
