"""Arrays that took long to make, kept in a folder: a benchmark that was broken off goes on where it was.

A folder knows what was asked, and nothing of the code that answered: it is for one state of the code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainables.files import replacing
from tune_rh.simulation.curve_table import Array


def kept(folder: Path | None, asked: object, make: Callable[[], Array]) -> Array:
    """What ``make`` returns, or what it returned when the same was ``asked`` (the same ``repr``) with this folder."""
    if folder is None:
        return make()
    path = folder / f"{hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}.npy"
    if not path.exists():
        made = make()
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.save(file, made)
    return np.asarray(np.load(path))
