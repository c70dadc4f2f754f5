"""A run of our own as a curve table, from its history: what a next search of that family is simulated on.

What it is not: a fair sample of the space (a sampler chose the configs, gates stopped most of them early), or a copy of
the run (decisions, checkpoints and other metrics than the objective are left out). See `CurveTable.complete`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from trainables.config import canonical_digest
from trainables.spelling import meant
from tune_rh.errors import PlanError
from tune_rh.record.events import CandidateAdded
from tune_rh.record.history import History
from tune_rh.record.members import Member
from tune_rh.simulation.curve_table import Curve, CurveTable, Parameter, Value


def record(name: str, history: History) -> CurveTable:
    """Every member's learning curve, from the reports in the journal.

    A config's hyperparameters are what was drawn for it; if some candidate lies outside of the space, they are the
    config fields that differ between candidates (lists as JSON, None as missing). A diverged member's last value is
    NaN at the step where that was seen; a failed one's is NaN at the evaluation that it never reached. Candidates
    without any report are left out; without any report at all a PlanError is raised.
    """
    plan = history.plan
    members = {
        candidate.id: {seed: m for seed, m in candidate.members.items() if m.step or m.status == "failed"}
        for candidate in history.candidates.values()
    }
    candidates = [candidate.added for candidate in history.candidates.values() if members[candidate.id]]
    if not candidates:
        raise PlanError(f"run {name!r}: no member has reported anything, so there is no curve to record")
    configs, distributions = _configs(candidates)
    return CurveTable(
        name=name,
        objective=plan.objective,
        mode=plan.mode,
        source=f"recorded from a run of plan {plan.name!r}, family {plan.family}",
        configs=tuple(configs),
        labels=tuple(" ".join(filter(None, (c.candidate, c.label))) for c in candidates),
        curves=tuple(
            tuple(_curve(history, seed, member) for seed, member in sorted(members[c.candidate].items()))
            for c in candidates
        ),
        parameters=_parameters(configs, distributions),
    )


def _curve(history: History, seed: int, member: Member) -> Curve:
    """What a member reported; a failed one ends with NaN at its next evaluation, for the step it died at is unknown."""
    rows = [(r.step, math.nan if r.diverged else r.value, r.train_s + r.eval_s) for r in member.reports]
    if member.status == "failed":
        rows.append((member.step + history.plan.eval_every, math.nan, 0.0))
    steps, values, seconds = zip(*rows, strict=True)
    return Curve(seed, np.array(steps, dtype=np.int64), np.array(values), np.cumsum(seconds))


def _configs(candidates: list[CandidateAdded]) -> tuple[list[dict[str, Value]], list[Mapping[str, str]]]:
    """Each candidate's hyperparameters, and all that is known of how they are drawn."""
    distributions = [c.distributions for c in candidates if c.params]
    if all(c.params for c in candidates):
        return [_plain(meant(c.params)) for c in candidates], distributions
    names = sorted(set().union(*(c.config for c in candidates)))
    differing = [n for n in names if len({canonical_digest([c.config.get(n)]) for c in candidates}) > 1]
    return [_plain({n: c.config.get(n) for n in differing}) for c in candidates], distributions


def _plain(fields: Mapping[str, Any]) -> dict[str, Value]:
    return {
        name: value if isinstance(value, int | float | str | bool) else json.dumps(value)
        for name, value in fields.items()
        if value is not None
    }


def _parameters(configs: list[dict[str, Value]], distributions: Iterable[Mapping[str, str]]) -> dict[str, Parameter]:
    """The drawn ranges and choices, made wider where a preset lies outside; what was not drawn spans what was seen."""
    drawn: dict[str, list[Any]] = {}
    for by_name in distributions:
        for name, text in by_name.items():
            drawn.setdefault(name, []).append(json.loads(text)["attributes"])
    names = {name: None for config in configs for name in config}
    seen = {name: [config[name] for config in configs if name in config] for name in names}
    return {name: _parameter(values, drawn.get(name, [])) for name, values in seen.items()}


def _parameter(seen: list[Value], drawn: list[Mapping[str, Any]]) -> Parameter:
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in seen)
    if not numeric or any("choices" in attributes for attributes in drawn):
        listed = [*(choice for a in drawn for choice in a.get("choices", ())), *seen]
        choices = {(type(value), value): value for value in _plain(dict(enumerate(listed))).values()}  # type: ignore[arg-type]
        return Parameter("categorical", choices=tuple(choices.values()))
    numbers = cast("list[float]", seen)
    low = min([*numbers, *(a["low"] for a in drawn)])
    high = max([*numbers, *(a["high"] for a in drawn)])
    whole = all(isinstance(value, int) for value in [*numbers, *(a["low"] for a in drawn)])
    log = any(a["log"] for a in drawn) and low > 0
    return Parameter("int" if whole else "float", low, high, log)
