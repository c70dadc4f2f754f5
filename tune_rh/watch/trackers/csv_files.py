"""A run as CSV files for a spreadsheet or pandas: ``csv/metrics.csv``, ``csv/test.csv`` and ``csv/candidates.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.files import make_folder, write_atomic
from tune_rh.record.events import CandidateAdded, Evaluated, Event, Tested
from tune_rh.record.history import History
from tune_rh.record.ranking import describe
from tune_rh.watch.trackers.facts import flat


class CsvFiles:
    """A row a report, a reading of test, a candidate; a metric or parameter that is new is a column more."""

    def begin(self, root: Path, history: History) -> None:
        """Go on with the files of a run."""
        folder = root / "csv"
        make_folder(folder)
        self._metrics = _Table(folder / "metrics.csv", ("candidate", "seed", "step"))
        self._test = _Table(folder / "test.csv", ("candidate", "seed", "step"))
        self._candidates = _Table(folder / "candidates.csv", ("candidate",))

    def __call__(self, event: Event, history: History) -> None:
        """Write what ``event`` says."""
        match event:
            case CandidateAdded():
                label = describe(history.candidates[event.candidate])
                shown = {"candidate": event.candidate, "origin": event.origin, "label": label}
                self._candidates.add({**shown, **flat(event.config)})
            case Evaluated():
                self._metrics.add({**_place(event), "train_s": event.train_s, **event.metrics})
            case Tested():
                self._test.add({**_place(event), **event.metrics})


def _place(event: Evaluated | Tested) -> dict[str, Any]:
    return {"candidate": event.member.candidate, "seed": event.member.seed, "step": event.step}


class _Table:
    """Rows in a file, one for each value of ``key``: what is there already is not written again."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self._path, self._key = path, key
        self._columns: list[str] = []
        self._keys: set[tuple[str, ...]] = set()
        for row in self._rows():
            self._columns = self._columns or list(row)
            self._keys.add(self._key_of(row))

    def add(self, row: Mapping[str, Any]) -> None:
        """Append ``row``."""
        if self._key_of(row) in self._keys:
            return
        new = [name for name in row if name not in self._columns]
        if new:
            before = self._rows()
            self._columns += new
            write_atomic(self._path, _text(self._columns, before, header=True), durable=False)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_text(self._columns, [row]))
        self._keys.add(self._key_of(row))

    def _key_of(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in self._key)

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, header: bool = False) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
