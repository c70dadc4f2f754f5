"""Candidates on another schedule than the control's, which a gate compares at other points of their schedules.

A learning rate that comes down brings the loss down with it, and tells nothing of what longer training would bring: of
two candidates that are alike otherwise, the one whose schedule ends first looks better until the other's has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.view import Run

_FIELD = "schedule_steps"
"""The config's own length of its schedule (`trainables.training.fields`)."""


def apart(config: Mapping[str, Any], control: Mapping[str, Any] | None, step: int) -> str:
    """``schedule_steps = 2000, the control's 20000``; empty for equal ones, and once both are at their end by ``step``.

    A family without such a field has nothing to tell.
    """
    own, other = config.get(_FIELD), (control or {}).get(_FIELD)
    if own is None or other is None or own == other or step >= max(own, other):
        return ""
    return f"{_FIELD} = {own}, the control's {other}"


def ranked_apart(run: Run) -> dict[str, str]:
    """Each candidate that a gate has ranked on another schedule than the control's, with both lengths, by id."""
    control = run.control
    marked = {}
    for gate in run.gates:
        for entry in gate:
            candidate = run.candidates[entry.candidate]
            mark = apart(candidate.config, None if control is None else control.config, entry.until_step)
            if mark and entry.rank is not None:
                marked[candidate.id] = mark
    return marked
