"""The baseline ladder of a run's data, kept beside the report: making it takes about a minute, and it never changes.

What it is not: the ladder itself (`analysis.spacing_mdn.baselines`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.reports.tables import write_json


@dataclass(frozen=True)
class Rung:
    """A baseline as it was kept: what it is called, its score on test, how it was made."""

    name: str
    nll: float
    note: str


def kept_ladder(path: Path, digest: str, make: Callable[[], Sequence[Any]], *, keep: bool = True) -> Sequence[Any]:
    """The ladder in ``path`` if it is of the same data, else a new one, which is kept.

    Args:
        path: of the file, ``report/ladder.json``.
        digest: of the data; an empty one is never taken for the same.
        make: makes the ladder; what it raises is not caught.
        keep: whether a new one is written to ``path``.
    """
    try:
        content = json.loads(path.read_text())
        if digest and content["digest"] == digest and content["rungs"]:
            return [Rung(str(r["name"]), float(r["nll"]), str(r["note"])) for r in content["rungs"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none there, or of another version: it is made again
    rungs = make()
    if rungs and keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"name": r.name, "nll": r.nll, "note": r.note} for r in rungs]
        write_json(path, {"digest": digest, "rungs": rows})
    return rungs
