"""The data sets of the family by name: how large, split by height, where they lie, checked whenever they are read.

A set is one ``.npy`` file under ``data_dir/spacing_mdn`` with a record for each block of 256 spacings, and a JSON
side-car with its SHA-256, its size and how it was made. ``first100k`` and ``full`` are unfolded spacings of zeta zeros,
``gue`` is the control without primes, and ``shuffled`` has those of ``first100k`` in a random order, of which nothing
can be told but the marginal: a model that does better there has seen its targets. Train is the lowest stretch, val and
test lie above it, so a split asks a model to carry on upwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import DataCorrupt, DataError, DataMissing

BLOCK = 256
"""Spacings in a block: the unit of splits, heights and bootstraps."""


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
    "shuffled": Layout(312, 39, 39),
}
UNORDERED = "shuffled"
"""The set that tells nothing of a spacing but the marginal."""


def file_of(name: str, data_dir: Path) -> Path:
    """Where a set lies."""
    return data_dir / "spacing_mdn" / f"{name}.npy"


def sidecar_of(path: Path) -> Path:
    """Where what is said about a set's file lies."""
    return path.with_suffix(".json")


def _command(name: str) -> str:
    return f"`tune-rh data spacing_mdn --size {name}`"


def remedy(name: str) -> str:
    """What to do where a set is damaged."""
    return f"{_command(name)} makes it anew"


def verified(name: str, data_dir: Path) -> tuple[str, bytes]:
    """Digest and bytes of a set's file.

    Raises:
        DataError: no set has that name.
        DataMissing: it has not been made yet.
        DataCorrupt: its digest is not what its side-car says.
    """
    check_name(name)
    path = file_of(name, data_dir)
    try:
        recorded = json.loads(sidecar_of(path).read_text(encoding="utf-8"))["sha256"]
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataMissing(f"data set {name!r} is not in {path.parent}; {_command(name)} makes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataCorrupt(f"{sidecar_of(path)} is not a side-car with a sha256; {remedy(name)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != recorded:
        raise DataCorrupt(f"{path} has SHA-256 {found}, its side-car says {recorded}; {remedy(name)}")
    return found, content


def check_name(name: str) -> None:
    """Raise `DataError` with the allowed names unless a set is called ``name``."""
    if name not in LAYOUTS:
        raise DataError(f"no data set of spacing_mdn is called {name!r}; allowed: {', '.join(LAYOUTS)}")
