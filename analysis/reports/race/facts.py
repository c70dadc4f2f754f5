"""What the report of a race is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Racer:
    """One seed.

    Attributes:
        at_gates: best value so far at each gate that it reached; None where it was lost.
        best: best value of all, None if it never had one.
        steps: optimiser steps spent on it.
        status: stopped, completed, parked, diverged or failed.
        passed: gates passed.
        test: value of the best checkpoint on the test split, None where it was not read.
        curve: (step, value as reported).
    """

    seed: int
    at_gates: tuple[float | None, ...]
    best: float | None
    best_step: int
    steps: int
    status: str
    passed: int
    test: float | None
    curve: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Race:
    """All seeds of one config.

    Attributes:
        unit: of the objective; may be empty.
        gates: steps, the last is the end of the race.
        keep: how many seeds pass each gate before the end.
        success: the value that a seed must reach to succeed, None where none was given.
        seconds, steps: slot seconds and optimiser steps spent on all.
    """

    run: str
    family: str
    config: str
    objective: str
    unit: str
    mode: Literal["min", "max"]
    gates: tuple[int, ...]
    keep: tuple[int, ...]
    racers: tuple[Racer, ...]
    success: float | None
    seconds: float
    steps: int

    @property
    def sign(self) -> float:
        """1 where lower is better, else -1."""
        return 1.0 if self.mode == "min" else -1.0
