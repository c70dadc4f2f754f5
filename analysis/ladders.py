"""Baseline ladders by family: what a win has to beat, measured on the run's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

LADDERS: dict[str, str] = {
    "spacing_mdn": "analysis.spacing_mdn.baselines:ladder",
    "shared_moe": "analysis.shared_moe.baselines:ladder",
}
# Whose models are evaluated on a sample of sequences that the config sets.
_BY_CONFIG = frozenset({"shared_moe"})


def ladder_for(family: str, dataset: str, data_dir: Path, config: Mapping[str, Any] | None = None) -> Sequence[Any]:
    """The baselines of ``family`` on the test split of ``dataset``; empty for a family that has none.

    Args:
        family: whose models are compared.
        dataset: one of its data sets.
        data_dir: root of all data.
        config: of a model. If given, baselines are scored on the targets that this model is evaluated on, where that
            depends on the config; otherwise on all of the split.
    """
    if family not in LADDERS:
        return ()
    module, _, attribute = LADDERS[family].partition(":")
    options = {"config": config} if family in _BY_CONFIG else {}
    rungs: Sequence[Any] = getattr(import_module(module), attribute)(dataset, data_dir, **options)
    return rungs
