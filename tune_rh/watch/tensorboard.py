"""A run as TensorBoard shows it: scalars and hyperparameters, one curve a member across all its jobs.

The driver writes them from what enters the journal, so that a job that was moved, retried or resumed leaves one curve.
It is a copy for watching; nothing reads it back.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as Record
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, scalar

from trainables.spelling import meant
from tune_rh.record.events import Evaluated, Event, JobEnded, MemberId, Tested
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.members import Member


class TensorBoard:
    """Follows a search as a watcher of `tune_rh.run.session.Session`: journal and history have each event already.

    What the history holds is written again when a session starts, so that a folder that was lost, or that a driver left
    in the middle of an event, is made whole.
    """

    def __init__(self, paths: RunPaths, history: History) -> None:
        # A diverged member's NaN belongs into its curve, and its own line in the log says so already.
        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
        self._folder = paths.tensorboard
        self._history = history
        self._writers: dict[MemberId, EventsWriter] = {}
        shutil.rmtree(self._folder, ignore_errors=True)
        for candidate in history.candidates.values():
            for member in candidate.members.values():
                if member.curve.steps:
                    self._rewrite(member)

    def __call__(self, event: Event) -> None:
        """Write what ``event`` says."""
        match event:
            case Evaluated():
                member = self._history.member(event.member)
                # A report that is heard twice, after a retry, is in the curve once.
                if member.curve.steps[-1] == event.step and member.curve.metrics[-1] == dict(event.metrics):
                    self._scalars(member, event.step, event.metrics)
            case Tested():
                self._scalars(self._history.member(event.member), event.step, event.metrics, "test_")
            case JobEnded():
                writer = self._writers.pop(event.member, None)
                if writer is not None:
                    writer.close()

    def _rewrite(self, member: Member) -> None:
        for step, metrics in zip(member.curve.steps, member.curve.metrics, strict=True):
            self._scalars(member, step, metrics)
        if member.tested is not None:
            self._scalars(member, member.tested.step, member.tested.metrics, "test_")
        self._writers.pop(member.id).close()

    def _scalars(self, member: Member, step: int, metrics: Any, prefix: str = "") -> None:
        writer = self._writers.get(member.id) or self._open(member)
        for name, value in metrics.items():
            if name.startswith(prefix):
                writer.write_event(Record(step=step, summary=scalar(name, value)))
        writer.flush()

    def _open(self, member: Member) -> EventsWriter:
        folder = self._folder / str(member.id)
        first = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        writer = self._writers[member.id] = EventsWriter(str(folder / "events"), f".{_count(folder):04d}")
        if first:
            added = self._history.candidates[member.id.candidate].added
            drawn = meant(added.params) or {"preset": added.label}
            for summary in hparams({**drawn, "seed": member.id.seed}, {self._history.plan.objective: 0}):
                assert isinstance(summary, Summary)
                writer.write_event(Record(summary=summary))
        return writer


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())
