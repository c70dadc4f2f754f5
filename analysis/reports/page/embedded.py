"""What the page's scripts draw, as compact JSON: learning curves, the parameters' axes, the ends of logs.

Scores and parameters stand in the page's table of candidates, and nowhere twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.escape import printable
from analysis.reports.page.facts import Facts
from analysis.reports.page.tables import candidate_columns, param_names, param_text
from analysis.view import Candidate, Member, Run, Standing

_MAX_SHOWN = 5  # candidates with a colour of their own, the control beside them
_MAX_POINTS = 240  # of a curve; of more, every second, third ...
_LOG_LINES, _LOG_BYTES = 12, 2400  # of the end of a member's log
_ALL_LOGS = 150_000  # characters of all logs on a page


def embedded(facts: Facts, *, logs: bool = True) -> str:
    """The JSON of a page, safe inside of a script element."""
    run, steps, columns = facts.run, Steps(), candidate_columns(facts.run)
    members = {name: members_of(facts, candidate, steps) for name, candidate in run.candidates.items()}
    data = {
        "name": run.root.name,
        "objective": run.objective,
        "unit": facts.unit,
        "mode": run.plan["mode"],
        "places": facts.places,
        "gates": [stage["until_step"] for stage in run.stages],
        "columns": {"step": columns.step, "score": columns.score},
        "axes": [_axis(run, name, columns.first_parameter + i) for i, name in enumerate(param_names(run))],
        "control": None if run.control is None else run.control.id,
        "best": None if facts.best is None else facts.best.candidate,
        "shown": [candidate.id for candidate in shown(run, facts.standings)],
        "members": members,
        "steps": steps.all,
        "changes": {name: _changes(run, candidate) for name, candidate in run.candidates.items()},
        "logs": _logs(facts) if logs else {},
    }
    return script_safe(data)


def script_safe(data: Any) -> str:
    """JSON that ends no script element, whatever its texts hold."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def shown(run: Run, standings: Sequence[Standing]) -> list[Candidate]:
    """The best few, then the control, of those that have a curve; before the first score those that came first."""
    control = run.control
    names = [s.candidate for s in standings if not s.entry.is_control and math.isfinite(s.val)][:_MAX_SHOWN]
    names = names or [name for name in run.candidates if control is None or name != control.id][:_MAX_SHOWN]
    candidates = [*(run.candidates[name] for name in names), *([control] if control is not None else [])]
    return [c for c in candidates if any(any(_points(m)) for m in c.members.values())]


class Steps:
    """Lists of steps, each kept once: most members report at the same ones."""

    def __init__(self) -> None:
        self.all: list[list[int]] = []
        self._places: dict[tuple[int, ...], int] = {}

    def place(self, steps: Sequence[int]) -> int:
        """Of an equal list, which is kept from now on."""
        place = self._places.setdefault(tuple(steps), len(self.all))
        if place == len(self.all):
            self.all.append(list(steps))
        return place


def members_of(facts: Facts, candidate: Candidate, steps: Steps) -> list[list[Any]]:
    """Of each member seed, status, reason, value on test, place of its steps, values."""
    rows = []
    for member in candidate.members.values():
        points = list(_points(member))
        points = [*points[: -1 : math.ceil(len(points) / _MAX_POINTS)], *points[-1:]] if points else []
        values = [round(value, facts.places + 1) for _, value in points]
        reason = printable(" ".join(member.reason.split()))[-300:]
        test = (member.tested or {}).get(facts.run.test_metric, math.nan)
        place = steps.place([step for step, _ in points])
        tested = round(test, facts.places + 1) if math.isfinite(test) else None
        rows.append([member.seed, member.status, reason, tested, place, values])
    return rows


def _points(member: Member) -> Iterator[tuple[int, float]]:
    return ((r.step, r.value) for r in member.reports if math.isfinite(r.value) and not r.diverged)


def _axis(run: Run, name: str, column: int) -> dict[str, Any]:
    """A parameter: the column of its values, whether it goes by factors, and its choices, where it is one of some."""
    axis: dict[str, Any] = {"name": name, "column": column}
    drawn = next((c.distributions[name] for c in run.candidates.values() if name in c.distributions), None)
    if drawn is not None:
        attributes: Mapping[str, Any] = json.loads(drawn)["attributes"]
        if attributes.get("log"):
            axis["log"] = True
        if "choices" in attributes:
            axis["choices"] = [param_text(choice) for choice in attributes["choices"]]
    return axis


def _changes(run: Run, candidate: Candidate) -> dict[str, str]:
    """What of its config is not the control's, or of no control all of it."""
    base = {} if run.control is None or candidate is run.control else run.control.config
    absent = object()
    return {k: param_text(v) for k, v in candidate.config.items() if base.get(k, absent) != v}


def _logs(facts: Facts) -> dict[str, str]:
    """The ends of members' logs: those that were lost first, then by the order of standings, while there is room."""
    order = {s.candidate: i for i, s in enumerate(facts.standings)}
    members = sorted(facts.run.members.values(), key=lambda m: (m.lost_stage is None, order.get(m.candidate, 10**9)))
    logs, room = {}, _ALL_LOGS
    for member in members:
        text = log_end(facts.run.root / "members" / member.id / "train.log")
        if text and len(text) <= room:
            logs[member.id] = text
            room -= len(text)
    return logs


def log_end(path: Path) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(map(printable, lines[-_LOG_LINES:]))
