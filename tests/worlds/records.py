"""Searches on disk for tests, and what their journals say once times and hosts are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.worlds.plans import plan
from tune_rh.record.events import CandidateAdded, Evaluated, Event, JobEnded, JobStarted, MemberId, Promoted, Tested
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths, read
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.runner import start_session
from tune_rh.run.session import Session

# A small search with everything in it: presets in and out of the space, a loss, late seeds, noise.
SMALL: dict[str, Any] = {
    "num_candidates": 4,
    "presets": ["good", "diverging"],
    "stages": [
        {"until_step": 20, "num_seeds": 1},
        {"until_step": 40, "num_seeds": 2},
        {"until_step": 60, "num_seeds": 2},
    ],
    "seeds": [7, 42],
    "sampler": {"startup": 2},
    "fixed": {"noise": 0.02},
    "resources": {"max_failures": 0},
}


def make(root: Path, **changes: Any) -> RunPaths:
    """A new run folder ``root`` whose data lies in its parent."""
    return runs.create(plan(**changes), root, root.parent)


def open_search(paths: RunPaths, *, slots: int = 1, runner: str = "local") -> tuple[runs.OpenRun, Session]:
    """A run, and a session on it."""
    run = runs.open_run(paths, paths.root.parent)
    return run, start_session(run, runner=runner, slots=slots)


def finish(paths: RunPaths) -> History:
    """Run to the end in process."""
    run, search = open_search(paths)
    LocalRunner(run).run(search)
    search.close("finished")
    return search.history


def events(paths: RunPaths) -> list[Event]:
    """The journal."""
    return list(read(paths.journal))


def of(paths: RunPaths, *kinds: type[Any]) -> list[Any]:
    """Events of these kinds."""
    return [event for event in events(paths) if isinstance(event, kinds)]


def timeless(event: Event) -> Event:
    """The event without its times and its machine."""
    given: dict[str, Any] = {"at_s": 0.0, "train_s": 0.0, "eval_s": 0.0, "repeated_s": 0.0, "node": ""}
    return replace(event, **{name: value for name, value in given.items() if hasattr(event, name)})


def curves(paths: RunPaths) -> dict[MemberId, list[Event]]:
    """Each member's reports and reading of test, each step once, as first heard."""
    found: dict[MemberId, dict[tuple[str, int], Event]] = {}
    for event in of(paths, Evaluated, Tested):
        found.setdefault(event.member, {}).setdefault((type(event).__name__, event.step), timeless(event))
    return {member: list(by_step.values()) for member, by_step in sorted(found.items())}


def decided(paths: RunPaths) -> dict[str, Any]:
    """Everything that a search decided and found, times and sessions aside."""
    _, history = runs.replay(paths)
    return {
        "candidates": of(paths, CandidateAdded),
        "promoted": of(paths, Promoted),
        "curves": curves(paths),
        "ended": {
            str(m.id): (m.status, m.step, m.curve.best, m.curve.best_step)
            for c in history.candidates.values()
            for m in c.members.values()
        },
        "gates": [(g.order, g.control_score()) for g in history.gates],
    }


def records(paths: RunPaths) -> list[Event]:
    """Every record of a run, in order, without its times, its machine and the traceback of a failure."""
    kept = of(paths, CandidateAdded, Promoted, JobStarted, Evaluated, Tested, JobEnded)
    return [
        replace(event, at_s=0.0, reason="" if event.outcome == "failed" else event.reason)
        if isinstance(event, JobEnded)
        else timeless(event)
        for event in kept
    ]


def steps_heard(paths: RunPaths, member: MemberId) -> list[int]:
    """The steps at which the member was evaluated, as often as the journal has them."""
    return [event.step for event in of(paths, Evaluated) if event.member == member]


class NoMirror:
    """In place of the study: it follows the journal and decides nothing."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self, _event: Event) -> None: ...

    def sync(self, **_: object) -> None: ...

    def update(self, *_: object) -> None: ...
