"""A job: everything a worker needs to know to move one member, or to look at it. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from trainables.worker.report import Fields, MemberId, Message

Purpose = Literal["train", "test", "diagnose"]


@dataclass(frozen=True)
class MemberJob(Message):
    """Everything a worker needs to know.

    Attributes:
        member: ``c0007-s42``; names the folder.
        family, config, config_digest: what is trained, with the member's seed.
        folder: ``runs/<name>/members/<member>``, on a path that every node sees.
        data_dir: where data sets lie.
        device: ``"cpu"`` or ``"cuda"``.
        threads: torch threads.
        gpu_fraction: share of one GPU; below one it bounds the memory that torch takes.
        objective, mode: which metric is best, and which way.
        eval_every: steps between evaluations.
        save_every: steps between checkpoints beside best and gates; None: none.
        beat_every: steps between heartbeats; 0: none.
        rules_off: rules of live health that are not looked at.
        gates: steps whose checkpoint is kept.
        patience_steps: for the log line only.
        stop_request: a file of the run; when it appears the member is handed back at the next step.
        lease: who may write the folder; a worker whose lease was replaced gives up.
        purpose: train; or read the test split with the best checkpoint, or diagnose it.
        diagnose: ``"module:attr"`` of what diagnoses, called with the job and a task that holds the best checkpoint.
        diagnostics: names of what it is to look at.
        from_step: the last step whose report was heard; a checkpoint beyond it begins with the report that got lost.
        until_step: where the job is expected to end; for names only.
    """

    member: MemberId
    family: str
    config: Fields
    config_digest: str
    folder: str
    data_dir: str
    objective: str
    mode: Literal["min", "max"]
    eval_every: int
    gates: tuple[int, ...]
    stop_request: str
    lease: str
    save_every: int | None = None
    beat_every: int = 0
    rules_off: tuple[str, ...] = ()
    patience_steps: int | None = None
    device: str = "cpu"
    threads: int = 1
    gpu_fraction: float = 0.0
    purpose: Purpose = "train"
    diagnose: str = ""
    diagnostics: tuple[str, ...] = ()
    from_step: int = 0
    until_step: int = 0

    @property
    def hand_back_request(self) -> Path:
        """A file of this lease; when it appears the member is handed back at the next step, to go on elsewhere."""
        return Path(self.folder) / f"hand-back-{self.lease}"

    @property
    def label(self) -> str:
        """``spacing_mdn c0007 s42 1k->5k``: what logs and process lists show."""
        family = self.family.rpartition(":")[0].rpartition(".")[2] or self.family
        leg = f"{_short(self.from_step)}->{_short(self.until_step)}" if self.purpose == "train" else self.purpose
        return f"{family} {self.member.candidate} s{self.member.seed} {leg}"

    def to_json(self) -> str:
        """One string, as it goes through Ray."""
        return _JOB.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> MemberJob:
        """The inverse of `to_json`; raises ValueError on anything else."""
        return _JOB.validate_json(text)


_JOB = TypeAdapter(MemberJob)


def _short(step: int) -> str:
    return f"{step / 1000:g}k" if step >= 1000 else str(step)
