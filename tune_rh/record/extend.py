"""What of a plan may change once its run has begun: what adds to it, and leaves every decision so far as it was.

More candidates, a budget, resources, diagnostics, watchers, and further stages after the last one; and where the task
was given in Python, that task once it is mended. The change is an event of the journal (`PlanChanged`), so that any
prefix of it gives the same decisions again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainables.given.module import given_modules
from tune_rh.errors import PlanError
from tune_rh.plan.file import override, resolve_plan
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.events import PlanChanged
from tune_rh.record.history import History

_GATE = ("top", "at_least", "at_most", "eta", "when_idle")
_MAY_CHANGE = ("resources", "diagnose", "watch", "num_candidates", "budget", "stages")
"""Those of a race or a comparison are the first three."""


def extend(history: History, overrides: Sequence[str]) -> PlanChanged | None:
    """The event that changes the plan of ``history`` as ``overrides`` (``key=value``) say; None if nothing differs.

    Raises:
        PlanError: naming each key that may not change, with both values and why.
    """
    fields = history.plan.model_dump(mode="json", exclude_none=True)
    for text in overrides:
        override(fields, text)
    plan = resolve_plan(fields, where="--set")
    before, after = history.plan.model_dump(mode="json"), plan.model_dump(mode="json")
    changed = [key for key in after if after[key] != before.get(key)]
    problems = [
        f"--set {path}: was {_shown(old)}, is {_shown(new)}: {why}"
        for key in changed
        if (why := _why_not(history, plan, key))
        for path, old, new in _differences(before.get(key), after[key], key)
    ]
    if problems:
        raise PlanError("\n".join(problems))
    return PlanChanged({key: after[key] for key in changed}) if changed else None


def _why_not(history: History, plan: Plan, key: str) -> str:
    """Why ``key`` may not change as ``plan`` says; empty if it may."""
    if key == "family" and len(given_modules((history.plan.family, plan.family))) == 2:
        return ""
    may_change = _MAY_CHANGE if isinstance(history.plan, Search) else _MAY_CHANGE[:3]
    if key not in may_change:
        return f"the run so far is one of the old value; start a new run. What may change: {', '.join(may_change)}"
    if key == "num_candidates":
        if plan.num_candidates < history.plan.num_candidates:
            return "there may be more candidates, not fewer"
        taken = [k for k, gate in enumerate(history.gates) if plan.stages[k].top and gate.num_promoted]
        if taken:
            return f"gate {taken[0] + 1} has taken its top {plan.stages[taken[0]].top} already; no other could pass it"
    if key == "stages" and not _adds_stages(history.plan, plan):
        return "stages that have begun stay as they are; further ones may follow, and the last one then gets a gate"
    if key in ("num_candidates", "stages") and history.num_audited:
        return "the audit has begun, for which all gates are closed"
    return ""


def _adds_stages(old: Plan, new: Plan) -> bool:
    """Whether ``new`` has all stages of ``old`` and more; the old last one, which had no gate, may have got one."""
    num = len(old.stages)
    if len(new.stages) <= num or new.stages[: num - 1] != old.stages[:-1]:
        return False
    return new.stages[num - 1].model_dump(exclude=set(_GATE)) == old.stages[-1].model_dump(exclude=set(_GATE))


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ, as deep as they can be told apart."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{path}.{i}")
    elif old != new:
        yield path, old, new


def _shown(value: object) -> str:
    return "not set" if value is None else repr(value)
