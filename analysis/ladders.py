"""Baseline ladders by family: what a win has to beat, measured on the run's own data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

LADDERS: dict[str, str] = {
    "spacing_mdn": "analysis.baselines:ladder",
}


def ladder_for(family: str, dataset: str, data_dir: Path) -> Sequence[Any]:
    """The baselines of ``family`` on the test split of ``dataset``; empty for a family that has none."""
    if family not in LADDERS:
        return ()
    module, _, attribute = LADDERS[family].partition(":")
    rungs: Sequence[Any] = getattr(import_module(module), attribute)(dataset, data_dir)
    return rungs
