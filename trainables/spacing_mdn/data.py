"""The data sets of the family: named, split by height, checked on every load.

What it is: the files under ``data_dir/spacing_mdn`` and the splits over them. A set is one ``.npy`` file with a record
for each block of 256 spacings, and a JSON side-car with its SHA-256, its size and how it was made.
What it is not: the solver (`riemann_siegel`), the chunk cache (`zeros`), the random matrices (`gue`), or anything that
shuffles, normalises or batches.

Sets: ``first100k`` and ``full`` are unfolded spacings of zeta zeros, ``gue`` is the control without primes. Train is
the lowest stretch, val and test lie above it, so a split asks a model to carry on upwards.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.errors import DataCorrupt, DataError, DataMissing

BLOCK = 256
"""Spacings in a block: the unit of splits, heights and bootstraps."""

_RECORD = np.dtype([("log_height", "<f8"), ("spacings", "<f8", (BLOCK,))])
_SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """How many blocks each split of a set takes, from the lowest height up."""

    train: int
    val: int
    test: int

    @property
    def num_blocks(self) -> int:
        """Blocks in the whole set."""
        return self.train + self.val + self.test


LAYOUTS: Mapping[str, Layout] = {
    "first100k": Layout(312, 39, 39),
    "full": Layout(6645, 390, 781),
    "gue": Layout(312, 39, 39),
}


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        spacings: float64 (num_blocks * 256,), contiguous in order of height, mean near 1, read-only.
        log_height: float64 (num_blocks,), log(gamma / 2 pi) where each block starts; zeros for ``gue``. Read-only.
    """

    spacings: NDArray[np.float64]
    log_height: NDArray[np.float64]

    def log_height_per_point(self) -> NDArray[np.float64]:
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


def load(name: str, data_dir: Path) -> SpacingData:
    """Read a data set and check it against its side-car.

    Raises:
        DataError: no set has that name.
        DataMissing: it has not been made yet.
        DataCorrupt: its digest or its shape is not what its side-car says.
    """
    digest, content = _verified(name, data_dir)
    layout = LAYOUTS[name]
    try:
        records = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        raise DataCorrupt(f"{_path(name, data_dir)} is no .npy file ({error}); {_remedy(name)}") from error
    if records.dtype != _RECORD or records.shape != (layout.num_blocks,):
        raise DataCorrupt(
            f"{_path(name, data_dir)} has shape {records.shape} of {records.dtype}, expected ({layout.num_blocks},) "
            f"blocks of {BLOCK}; {_remedy(name)}"
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


def _verified(name: str, data_dir: Path) -> tuple[str, bytes]:
    """Digest and bytes of a set's file; raises as `load`."""
    known_name(name)
    path = _path(name, data_dir)
    try:
        recorded = json.loads(_sidecar(path).read_text())["sha256"]
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataMissing(f"data set {name!r} is not in {path.parent}; {_command(name)} makes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataCorrupt(f"{_sidecar(path)} is not a side-car with a sha256; {_remedy(name)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != recorded:
        raise DataCorrupt(f"{path} has SHA-256 {found}, its side-car says {recorded}; {_remedy(name)}")
    return found, content


def known_name(name: str) -> None:
    """Raise `DataError` with the allowed names unless a set is called ``name``."""
    if name not in LAYOUTS:
        raise DataError(f"no data set of spacing_mdn is called {name!r}; allowed: {', '.join(LAYOUTS)}")


def _path(name: str, data_dir: Path) -> Path:
    return data_dir / "spacing_mdn" / f"{name}.npy"


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _command(name: str) -> str:
    return f"`tune-rh data spacing_mdn --size {name}`"


def _remedy(name: str) -> str:
    return f"{_command(name)} makes it anew"
