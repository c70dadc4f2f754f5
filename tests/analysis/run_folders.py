"""Run folders from simulated searches: what a session leaves on disk, without models and without training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.reports.page import page
from analysis.view import Run
from tests.worlds import journals
from tests.worlds.plans import plan
from tests.worlds.scripted import Metrics, Simulation
from tune_rh.plan.schema import Plan
from tune_rh.record.events import Event, SessionEnded, encode
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.results.reading import read


def write_run(folder: Path, of: Plan, events: Iterable[Event]) -> Path:
    """Plan, provenance and journal in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(of.toml())
    (folder / "provenance.json").write_text(json.dumps({"tune_rh": "test"}))
    journals.write(folder / "journal.jsonl", map(encode, events))
    return folder


def simulate(folder: Path, metrics: Metrics, *, fates: Any = None, slots: int = 2, **changes: Any) -> History:
    """Run a simulated search to the end and write it; returns its history."""
    mode = changes.pop("mode", "min")
    of = plan(**changes).model_copy(update={"mode": mode})
    done = Simulation(of, metrics, fates=fates, slots=slots).run()
    write_run(folder, of, [*done.events, SessionEnded(1, 0.0, "finished")])
    return done.history


def read_run(folder: Path) -> Run:
    """The run in ``folder`` as reports and diagnostics are handed it."""
    return read(RunPaths(folder)).run


def write_page(folder: Path, out: Path | None = None, **others: Any) -> Path:
    """The report of the run in ``folder``, without its baselines and what is asked about the whole run."""
    reading = read(RunPaths(folder))
    return page.write(reading.run, out, notes=reading.notes, **others)
