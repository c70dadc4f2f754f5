"""What the report of a comparison is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.reports.comparison.bisection import Bisection
from analysis.stats.claims import Claim


@dataclass(frozen=True)
class Side:
    """A or B.

    Attributes:
        config_summary: what differs from the other side, in words; empty for nothing worth a line.
        values: best value by seed, None for a seed that diverged or failed.
        curves: (step, value as reported) by seed.
        steps, seconds: optimiser steps and slot seconds spent on it.
    """

    name: str
    config_summary: str
    values: Mapping[int, float | None]
    curves: Mapping[int, Sequence[tuple[int, float]]]
    steps: int
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A and B, and what can be said of them.

    Attributes:
        unit: of the objective; may be empty.
        until_step: to which every seed was trained.
        claim: of b - a where lower is better: for ``max`` the caller has turned the sign.
        test, alpha, region: how the claim was tested.
        tests: mean and standard deviation on the test split, by ``a`` and ``b``; empty where it was not read.
        command: that made this run.
    """

    run: str
    family: str
    objective: str
    unit: str
    mode: Literal["min", "max"]
    until_step: int
    a: Side
    b: Side
    claim: Claim
    test: str
    alpha: float
    region: float
    tests: Mapping[str, tuple[float, float]]
    bisection: Bisection | None
    command: str

    @property
    def sign(self) -> float:
        """1 where lower is better, else -1."""
        return 1.0 if self.mode == "min" else -1.0
