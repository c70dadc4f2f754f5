"""What is searched over: families of torch models with their data and training. Importing this loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(folder: str | Path, trust: str | None = None, data_dir: str | Path = "data") -> Any:
    """The model that ``tune-rh export`` wrote to ``folder``; see `trainables.worker.exported.load`."""
    from trainables.worker.exported import load as load_exported

    return load_exported(folder, trust, data_dir)
