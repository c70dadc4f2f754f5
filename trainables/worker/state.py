"""What a member's checkpoint remembers beside the task's own state: where it stands, and the interval under way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from trainables.api import Metric
from trainables.worker.health import TrainingHealth
from trainables.worker.report import Evaluated, Message, Number

_AVERAGED = ("train_", "grad_norm")


@dataclass
class Interval(Message):
    """Training since the last evaluation. It is saved with the member, so an interrupted one is finished later."""

    steps: int = 0
    train_s: Number = 0.0
    sums: dict[str, Number] = field(default_factory=dict)
    counted: dict[str, Number] = field(default_factory=dict)
    """The counts that rates are made of, as they were at the start of the interval."""
    times: dict[str, int] = field(default_factory=dict)
    """How often each averaged metric came."""

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take one optimiser step in: losses and gradient norms are averaged over the steps that report them, anything
        else is its last value.
        """
        self.steps += 1
        for name, value in metrics.items():
            if name.startswith(_AVERAGED):
                self.times[name] = self.times.get(name, 0) + 1
                value += self.sums.get(name, 0.0)
            self.sums[name] = value

    def metrics(self, rates: Iterable[Metric]) -> dict[str, float]:
        """The interval's metrics, with ``rates`` as growth of their counts per second of training."""
        found = {name: value / self.times.get(name, 1) for name, value in self.sums.items()}
        for rate in rates:
            grown = found[rate.rate_of] - self.counted.get(rate.rate_of, 0.0)
            found[rate.name] = grown / max(self.train_s, 1e-9)
        return found

    def next(self, rates: Iterable[Metric]) -> Interval:
        """The interval that follows, empty but for the counts at its start."""
        return Interval(counted={rate.rate_of: self.sums[rate.rate_of] for rate in rates})


@dataclass
class MemberState(Message):
    """Where a member stands.

    Attributes:
        step: optimiser steps taken since the start of the member.
        best, best_step: the best value of the objective so far, and where it was.
        elapsed_s: seconds of training and evaluation, for the log.
        interval: what was trained since the last report.
        report: the last report. A worker that dies after saving and before its report is heard leaves it here.
        health: what the rules of live health remember.
    """

    step: int = 0
    best: Number | None = None
    best_step: int = 0
    elapsed_s: Number = 0.0
    interval: Interval = field(default_factory=Interval)
    report: Evaluated | None = None
    health: TrainingHealth = field(default_factory=TrainingHealth)

    def note(self, value: float, mode: Literal["min", "max"]) -> None:
        """Remember ``value`` if it is the best so far."""
        if self.best is None or (value < self.best if mode == "min" else value > self.best):
            self.best, self.best_step = value, self.step

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for the index of a checkpoint."""
        facts: dict[str, Any] = json.loads(_STATE.dump_json(self))
        return facts

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> MemberState:
        """The inverse of `to_json`; raises ValueError on anything else."""
        return _STATE.validate_json(json.dumps(facts))


_STATE = TypeAdapter(MemberState)
