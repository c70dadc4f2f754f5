"""The report of a comparison: is B better or worse than A over paired seeds, and which keys make it so.

What it is: words, tables and figures for a verdict that `analysis.claims` has come to and for a bisection that is over
or ran out of probes. What it is not: a test. Values are in the objective's own sign and unit; only the claim is of the
minimised difference, and is turned back here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.claims import Claim


@dataclass(frozen=True)
class Side:
    """A or B.

    Attributes:
        name: of its config.
        config_summary: what differs from the other side, in words; empty for nothing worth a line.
        values: best value by seed, None for a seed that diverged or failed.
        curves: (step, value as reported) by seed.
        steps: optimiser steps spent on it.
        seconds: slot seconds spent on it.
    """

    name: str
    config_summary: str
    values: Mapping[int, float | None]
    curves: Mapping[int, Sequence[tuple[int, float]]]
    steps: int
    seconds: float


@dataclass(frozen=True)
class Probe:
    """A with some keys as in B.

    Attributes:
        keys: those taken from B.
        outcome: whether it carries the difference; None while that is not decided.
        position: mean over seeds between A (0) and B (1); NaN without a value.
        low, high: interval of the position, NaN where there is none.
        num_seeds: seeds it was run with.
        sure: whether a test decided the outcome rather than the side of the halfway point on which the mean lies.
        steps: optimiser steps spent on it.
    """

    keys: tuple[str, ...]
    outcome: Literal["carries", "clean", "invalid"] | None
    position: float
    low: float
    high: float
    num_seeds: int
    sure: bool
    steps: int


@dataclass(frozen=True)
class Bisection:
    """Where the search for the keys that carry the difference ended.

    Attributes:
        suspects: keys in which A and B differ.
        causes: sets found, each of which carries the difference and can lose none of its groups.
        remaining: the smallest set known to carry it, of the cause sought when the search ended.
        done: whether nothing is left to probe.
        probes: in the order in which they were run.
        max_probes: how many were allowed.
        values_a, values_b: of the suspects; a key that one side lacks is absent.
        rest_carries: whether what is left without the causes still carries it; None if that is not known.
        note: anything else that a reader must know; may be empty.
    """

    suspects: tuple[str, ...]
    causes: tuple[tuple[str, ...], ...]
    remaining: tuple[str, ...]
    done: bool
    probes: tuple[Probe, ...]
    max_probes: int
    values_a: Mapping[str, Any]
    values_b: Mapping[str, Any]
    rest_carries: bool | None
    note: str


@dataclass(frozen=True)
class Comparison:
    """A and B, and what can be said of them.

    Attributes:
        run, family: names.
        objective, unit: what is compared, and in what; the unit may be empty.
        mode: ``min`` or ``max``: what is better.
        until_step: to which every seed was trained.
        a, b: the two sides.
        claim: of b - a where lower is better: for ``max`` the caller has turned the sign.
        test, alpha, region: how the claim was tested.
        tests: mean and standard deviation on the test split, by ``a`` and ``b``; empty where it was not read.
        bisection: None where there was none.
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
