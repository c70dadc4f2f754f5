"""A run as TensorBoard shows it: scalars and hyperparameters, one curve a member across all its jobs.

The driver writes them from what enters the journal, so that a job that was moved, retried or resumed leaves one curve.
It is a copy for watching; nothing reads it back.
"""

from __future__ import annotations

import logging
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as Record
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams, scalar

from trainables.spelling import equal, meant
from tune_rh.record.events import Evaluated, Event, JobEnded, MemberId, Tested
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.members import Member

_HEADER, _FOOTER_BYTES = struct.Struct("<QI"), 4  # of a record: its length with a checksum, a checksum after it


class TensorBoard:
    """One step of one member is one record; the curve of a member whose records are not those of ``history`` is
    written again, so that a folder that was lost, or left in the middle of a record, is made whole.
    """

    def __init__(self, paths: RunPaths, history: History) -> None:
        # A diverged member's NaN belongs into its curve, and its own line in the log says so already.
        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)
        self._folder = paths.tensorboard
        self._history = history
        self._writers: dict[MemberId, EventsWriter] = {}
        members = {str(m.id): m for c in history.candidates.values() for m in c.members.values() if m.curve.steps}
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            if folder.name not in members or _num_records(folder) != _num_expected(members[folder.name]):
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        for name, member in members.items():
            if not (self._folder / name).exists():
                self._rewrite(member)

    def __call__(self, event: Event) -> None:
        """Write what ``event`` says."""
        match event:
            case Evaluated():
                member = self._history.member(event.member)
                # A report that is heard twice, after a retry, is in the curve once.
                if member.curve.steps[-1] == event.step and equal(member.curve.metrics[-1], dict(event.metrics)):
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
        values = [scalar(name, value) for name, value in metrics.items() if name.startswith(prefix)]
        writer.write_event(Record(step=step, summary=_together(values)))
        writer.flush()

    def _open(self, member: Member) -> EventsWriter:
        folder = self._folder / str(member.id)
        first = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        writer = self._writers[member.id] = EventsWriter(str(folder / "events"), f".{_count(folder):04d}")
        if first:
            added = self._history.candidates[member.id.candidate].added
            drawn = meant(added.params) or {"preset": added.label}
            summaries = hparams({**drawn, "seed": member.id.seed}, {self._history.plan.objective: 0})
            writer.write_event(Record(summary=_together(summaries)))
        return writer


def _together(summaries: Iterable[Any]) -> Any:
    return Summary(value=[value for summary in summaries for value in summary.value])


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


def _num_expected(member: Member) -> int:
    """How many records a member has: its hyperparameters, a step each, its reading of test."""
    return 1 + len(member.curve.steps) + (member.tested is not None)


def _num_records(folder: Path) -> int:
    """How many records lie in a member's files; -1 if one is cut off, or is no folder of files."""
    num = 0
    for path in folder.iterdir() if folder.is_dir() else [folder]:
        content, at = path.read_bytes(), 0
        while at + _HEADER.size <= len(content):
            at += _HEADER.size + _HEADER.unpack_from(content, at)[0] + _FOOTER_BYTES
            num += 1
        if at != len(content) or folder == path:
            return -1
    return num - sum(1 for _ in folder.iterdir())  # each file begins with its version
