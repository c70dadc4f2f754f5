"""The data sets of the family: named, split by height, checked on every load.

A set is one ``.npy`` file under ``data_dir/spacing_mdn`` with a record for each block of 256 spacings, and a JSON
side-car with its SHA-256, its size and how it was made. ``first100k`` and ``full`` are unfolded spacings of zeta zeros,
``gue`` is the control without primes. Train is the lowest stretch, val and test lie above it, so a split asks a model
to carry on upwards.
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

import flint
import numpy as np
import scipy
from numpy.typing import NDArray

from trainables.api import Progress
from trainables.arrays import Array
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.files import write_atomic
from trainables.spacing_mdn.data import gue, zeros

BLOCK = 256
"""Spacings in a block: the unit of splits, heights and bootstraps."""

_RECORD = np.dtype([("log_height", "<f8"), ("spacings", "<f8", (BLOCK,))])
_SCHEMA = 1
_NUM_ZEROS = {"first100k": 100_000, "full": 2_001_052}
_GUE_SEED = 20020


@dataclass(frozen=True)
class _Layout:
    """How many blocks each split of a set takes, from the lowest height up."""

    train: int
    val: int
    test: int

    @property
    def num_blocks(self) -> int:
        """Blocks in the whole set."""
        return self.train + self.val + self.test


_LAYOUTS: Mapping[str, _Layout] = {
    "first100k": _Layout(312, 39, 39),
    "full": _Layout(6645, 390, 781),
    "gue": _Layout(312, 39, 39),
}


@dataclass(frozen=True)
class Part:
    """One split.

    Attributes:
        spacings: float64 (num_blocks * 256,), contiguous in order of height, mean near 1, read-only.
        log_height: float64 (num_blocks,), log(gamma / 2 pi) where each block starts; zeros for ``gue``. Read-only.
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


def load(name: str, data_dir: Path) -> SpacingData:
    """Read a data set and check it against its side-car.

    Raises:
        DataError: no set has that name.
        DataMissing: it has not been made yet.
        DataCorrupt: its digest or its shape is not what its side-car says.
    """
    digest, content = _verified(name, data_dir)
    layout = _LAYOUTS[name]
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
    _known_name(name)
    path = _path(name, data_dir)
    try:
        recorded = json.loads(_sidecar(path).read_text(encoding="utf-8"))["sha256"]
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataMissing(f"data set {name!r} is not in {path.parent}; {_command(name)} makes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataCorrupt(f"{_sidecar(path)} is not a side-car with a sha256; {_remedy(name)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != recorded:
        raise DataCorrupt(f"{path} has SHA-256 {found}, its side-car says {recorded}; {_remedy(name)}")
    return found, content


def _known_name(name: str) -> None:
    """Raise `DataError` with the allowed names unless a set is called ``name``."""
    if name not in _LAYOUTS:
        raise DataError(f"no data set of spacing_mdn is called {name!r}; allowed: {', '.join(_LAYOUTS)}")


class _SpacingSource:
    """The family's `trainables.api.DataSource`."""

    names: tuple[str, ...] = tuple(_LAYOUTS)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make the data set unless it is there and sound; returns the path of its file.

        Zeros are kept in chunks that all sizes share, so an interrupted call goes on where it was cut off and a larger
        set begins with what a smaller one made. A set whose digest does not fit is made again. ``progress`` counts
        zeros or spacings. Raises `DataCorrupt` if the zeros made or found fail the check of their counts.
        """
        path = _path(name, data_dir)
        try:
            self.digest(name, data_dir)
        except (DataMissing, DataCorrupt):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(name, path, _make(name, path.parent, progress))
        return path

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the set's file, recomputed and equal to the one recorded; raises as `load`."""
        return _verified(name, data_dir)[0]

    def check(self, config: Any, data_dir: Path) -> None:
        """Raise `DataError` unless a window, its last target and the past of its linear features fit in each split."""
        _known_name(config.data)
        layout = _LAYOUTS[config.data]
        allowed = BLOCK * min(layout.train, layout.val, layout.test) - 1 - config.ar_features
        if config.context > allowed:
            raise DataError(
                f"context = {config.context}: the shortest split of data set {config.data!r} holds no such window; "
                f"allowed is at most {allowed}"
            )


SOURCE = _SpacingSource()


def _make(name: str, folder: Path, progress: Progress | None) -> NDArray[Any]:
    """The records of a set."""
    num_blocks = _LAYOUTS[name].num_blocks
    records = np.zeros(num_blocks, dtype=_RECORD)
    if name == "gue":
        records["spacings"] = gue.spacings(num_blocks * BLOCK, _GUE_SEED, progress).reshape(num_blocks, BLOCK)
        return records
    ordinates = zeros.ordinates(_NUM_ZEROS[name], folder / "zeros", progress)
    spacings = zeros.unfolded_spacings(ordinates)[: num_blocks * BLOCK]
    records["spacings"] = spacings.reshape(num_blocks, BLOCK)
    records["log_height"] = np.log(ordinates[: num_blocks * BLOCK : BLOCK] / (2.0 * np.pi))
    return records


def _write(name: str, path: Path, records: NDArray[Any]) -> None:
    """The file, then its side-car: a cut between the two leaves a set that `prepare` makes again."""
    buffer = io.BytesIO()
    np.save(buffer, records)
    content = buffer.getvalue()
    if name == "gue":
        made = f"bulk GUE spacings, tridiagonal matrices of {gue.SIZE}, {gue.PER_MATRIX} from each, seed {_GUE_SEED}"
    else:
        made = f"unfolded spacings of the first {_NUM_ZEROS[name]} zeta zeros, Riemann-Siegel with C0..C4"
    about = {
        "schema": _SCHEMA,
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "num_blocks": len(records),
        "block": BLOCK,
        "made": made,
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "python-flint": flint.__version__},
    }
    write_atomic(path, content)
    write_atomic(_sidecar(path), json.dumps(about, indent=2).encode() + b"\n")


def _path(name: str, data_dir: Path) -> Path:
    return data_dir / "spacing_mdn" / f"{name}.npy"


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".json")


def _command(name: str) -> str:
    return f"`tune-rh data spacing_mdn --size {name}`"


def _remedy(name: str) -> str:
    return f"{_command(name)} makes it anew"
