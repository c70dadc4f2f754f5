"""Runs on disk as they are now, only to look at: finished or not, being written, or of a family that is gone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from analysis.view import Run
from trainables.trust import is_trusted, why_not
from tune_rh.decide.extrapolation import Extrapolation
from tune_rh.record.history import History
from tune_rh.record.journal import Mark, RunPaths, is_locked
from tune_rh.record.view import view
from tune_rh.run import runs


@dataclass(frozen=True)
class Reading:
    """A run as it was read: its journal is folded once for everything that is shown."""

    paths: RunPaths
    history: History
    is_written: bool  # by some process, at that time
    provenance: Mapping[str, Any]  # empty if it was lost
    notes: tuple[str, ...] = ()  # what could not be read, in words

    @cached_property
    def run(self) -> Run:
        """What reports, tables and diagnostics of whole runs are handed."""
        run = view(self.history, self.paths.root, self.provenance)
        if self.history.plan.scheduler != "value":
            return run
        known = Extrapolation(self.history).in_words()
        return replace(run, remarks=(*run.remarks, *([known] if known else [])))


def read(paths: RunPaths) -> Reading:
    """Read a run; warnings about what was passed over are kept as notes, and given again.

    Raises:
        JournalCorrupt: the frozen plan or the journal are damaged.
    """
    written = is_locked(paths)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan, history = runs.replay(paths)
        for reference in plan.from_outside:
            if not is_trusted(reference):
                warnings.warn(f"run {paths.root.name!r}: {why_not(reference)}", stacklevel=2)
        provenance = read_provenance(paths)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    if not written:
        history.hand_back_all()
    return Reading(paths, history, written, provenance, tuple(str(warning.message) for warning in caught))


class Watch:
    """Readings of a run, each of which reads of the journal only what is new while some process writes it."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._history: History | None = None
        self._mark = Mark()
        self._provenance: Mapping[str, Any] = {}

    def read(self) -> Reading:
        """The run as it is now; raises as `read`."""
        if not is_locked(self._paths) or self._paths.journal.stat().st_size < self._mark.position:
            self._history = None  # what runs is taken for handed back, which nothing that goes on may see
            return read(self._paths)
        if self._history is None:
            self._mark = Mark()
            _, self._history = runs.replay(self._paths, mark=self._mark)
            self._provenance = read_provenance(self._paths)
        else:
            runs.fold(self._history, self._paths, self._mark)
        return Reading(self._paths, self._history, True, self._provenance)


def read_provenance(paths: RunPaths) -> Mapping[str, Any]:
    """What the run was made with; empty, with a warning, if that was lost."""
    try:
        facts = json.loads(paths.provenance.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        warnings.warn(f"{paths.provenance}: provenance cannot be read ({error})", stacklevel=2)
        return {}
    return facts
