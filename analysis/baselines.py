"""What a win has to beat on the run's own data: measured by the family's own function, and kept beside the report.

Measuring takes about a minute, and the rows never change while the data stay the same. The predictors themselves are
each family's (`trainables.api.Family.baselines`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.diagnose.api import Baseline
from analysis.reports.tables import write_json
from trainables.knowledge import Knowledge
from trainables.registry import get_part


def measure(family: str, dataset: str, data_dir: Path, config: Mapping[str, Any] | None = None) -> Sequence[Baseline]:
    """The baselines of ``family`` on the test split of ``dataset``; none for a family that names none.

    A ``config`` of a model has them scored on the targets that this model is evaluated on, where that depends on it.
    """
    named = get_part(family, "baselines")
    several = named if isinstance(named, list | tuple) else () if named is None else (named,)
    return [row for measured in several for row in measured(dataset, data_dir, config=config)]


def unbeaten(rows: Iterable[Baseline], value: float, sign: float) -> list[str]:
    """Names of the baselines that are as good as ``value`` or better; ``sign`` is -1 where higher values are better."""
    return [row.name for row in rows if not sign * value < sign * row.value]


def within(rows: Sequence[Baseline], knowledge: Knowledge | None) -> tuple[list[Baseline], list[Baseline]]:
    """Baselines that know nothing beyond ``knowledge``, which a model that has it must beat; and those that do.

    A baseline or a model that does not say what it knows is held against all.
    """
    fair = [row for row in rows if knowledge is None or row.knowledge is None or knowledge.covers(row.knowledge)]
    return fair, [row for row in rows if row not in fair]


def kept(path: Path, digest: str, make: Callable[[], Sequence[Baseline]], *, keep: bool = True) -> Sequence[Baseline]:
    """The baselines in ``path`` (``report/baselines.json``) if they are of the same data, else new ones from ``make``.

    New ones are written to ``path`` if ``keep``. An empty ``digest`` is never taken for that of the same data.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if digest and content["digest"] == digest and content["baselines"]:
            return [_baseline(row) for row in content["baselines"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none there, or of another version: it is made again
    rows = make()
    if rows and keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"digest": digest, "baselines": [asdict(row) for row in rows]})
    return rows


def _baseline(row: Mapping[str, Any]) -> Baseline:
    known = row.get("knowledge")
    knowledge = None if known is None else Knowledge(int(known["level"]), str(known["name"]), int(known["past"]))
    return Baseline(str(row["name"]), float(row["value"]), str(row["note"]), knowledge)
