"""A run as TensorBoard shows it: scalars and hyperparameters, one curve a member across all its jobs.

The driver writes them from what enters the journal, so that a job that was moved, retried or resumed leaves one curve.
It is a copy for watching; nothing reads it back.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Not torch.utils.tensorboard, nor tensorboardX: a driver needs torch for nothing else.
from tensorboard.compat.proto.event_pb2 import Event as Record
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

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
        self._folder = paths.tensorboard
        self._history = history
        self._writers: dict[MemberId, RecordWriter] = {}
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

    def _scalars(self, member: Member, step: int, metrics: Mapping[str, float], prefix: str = "") -> None:
        writer = self._writers.get(member.id) or self._open(member)
        values = [
            Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if name.startswith(prefix)
        ]
        _write(writer, step=step, summary=Summary(value=values))
        writer.flush()

    def _open(self, member: Member) -> RecordWriter:
        folder = self._folder / str(member.id)
        first = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files with `tfevents` in their names, in the order of these.
        file = (folder / f"events.out.tfevents.{_count(folder):010d}").open("xb")
        writer = self._writers[member.id] = RecordWriter(file)
        _write(writer, file_version="brain.Event:2")
        if first:
            added = self._history.candidates[member.id.candidate].added
            drawn = {"seed": member.id.seed, **(meant(added.params) or {"preset": added.label})}
            _write(writer, summary=hparams_pb({name: _shown(value) for name, value in drawn.items()}))
        return writer


def _write(writer: RecordWriter, **fields: Any) -> None:
    writer.write(Record(wall_time=time.time(), **fields).SerializeToString())


def _shown(value: Any) -> Any:
    """A hyperparameter as TensorBoard takes it."""
    return value if isinstance(value, bool | int | float | str) else str(value)


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
