"""Schedules as pure functions of the step: learning rates and weights of auxiliary losses.

A schedule sees the step and the config's pinned ``schedule_steps``, and nothing else. How long a member will in fact be
trained (the end of its stage) never enters, so that a promoted member goes on along the same curve. Torch's own have a
state, which would have to be saved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

ScheduleKind = Literal["cosine", "wsd", "constant"]
SCHEDULE_KINDS: tuple[str, ...] = get_args(ScheduleKind)
_WSD_DECAY_FRACTION = 0.2
"""Share of ``schedule_steps`` that the decay of warm-up-stable-decay takes."""


def lr_factor(step: int, *, kind: ScheduleKind, schedule_steps: int, warmup: int, final: float = 0.1) -> float:
    """The learning rate at ``step`` (about to be taken, counted from 0), as a factor of its peak.

    Every kind rises linearly over the first ``warmup`` steps and reaches 1 at step ``warmup - 1``. Then ``cosine`` is
    half a cosine from 1 to ``final``, ``wsd`` 1 and a straight line to ``final`` over the last fifth of the schedule,
    and ``constant`` 1. After ``schedule_steps`` the first two stay at ``final``: training longer than planned is legal.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "wsd":
        start = max(warmup, schedule_steps - round(_WSD_DECAY_FRACTION * schedule_steps))
        return 1.0 - (1.0 - final) * _progress(step, start, schedule_steps)
    if kind == "cosine":
        done = _progress(step, warmup, schedule_steps)
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))
    raise ValueError(f"schedule = {kind!r}: allowed are {', '.join(SCHEDULE_KINDS)}")


def _progress(step: int, start: int, end: int) -> float:
    """How far ``step`` is from ``start`` to ``end``, within 0 and 1; an empty span is over at once."""
    if step < start:
        return 0.0
    return 1.0 if step >= end else (step - start) / (end - start)


def ramp(step: int, knots: Sequence[tuple[int, float]]) -> float:
    """Piecewise linear through ``knots`` of (step, value), flat before the first and after the last.

    Steps of knots never fall; of two knots at one step the later holds from there on.
    """
    if step < knots[0][0]:
        return knots[0][1]
    for (left, low), (right, high) in itertools.pairwise(knots):
        if step < right:
            return low + (high - low) * (step - left) / (right - left)
    return knots[-1][1]
