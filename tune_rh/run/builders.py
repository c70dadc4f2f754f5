"""Plans of races and comparisons, made from the configs that a user names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tune_rh.errors import PlanError
from tune_rh.plan.cost import even_steps
from tune_rh.plan.file import override, resolve_plan
from tune_rh.plan.kinds import MAX_PAIRS, MIN_PAIRS
from tune_rh.plan.schema import Plan
from tune_rh.run.chosen import Chosen


def race_plan(
    config: Chosen,
    *,
    seeds: Sequence[int],
    steps: int,
    keep: int,
    then: int,
    patience: int | None = None,
    success: float | None = None,
    eval_every: int | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """All ``seeds`` of ``config`` run to ``steps``; the best ``keep`` go on to ``then``. See `tune_rh.api.race`."""
    if keep > len(seeds):
        raise PlanError(f"keep = {keep}: more than the {len(seeds)} seeds that start")
    steps_that_divide = (steps, then, *([patience] if patience is not None else []))
    fields = {
        "name": _safe_name(f"{config.label}-race"),
        "family": config.family,
        "unit": "member",
        "control": config.label,
        "configs": {config.label: config.variant.model_dump(exclude_none=True)},
        "num_candidates": 0,
        "seeds": list(seeds),
        "eval_every": even_steps(*steps_that_divide) if eval_every is None else eval_every,
        "stages": [
            {"until_step": steps, "num_seeds": len(seeds), "top": keep},
            {"until_step": then, "num_seeds": len(seeds)},
        ],
        "rules": {"patience_steps": patience} if patience is not None else {},
        "scoring": {"success": success} if success is not None else {},
    }
    return _resolved(fields, overrides, "race")


def comparison_plan(
    a: Chosen,
    b: Chosen,
    *,
    steps: int,
    seeds: int | Sequence[int] = 8,
    eval_every: int | None = None,
    compare: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """``b`` is compared with ``a``, paired by seed, every run to ``steps``. See `tune_rh.api.compare`."""
    if isinstance(seeds, int) and seeds > MAX_PAIRS:
        raise PlanError(f"seeds = {seeds}: a comparison takes {MIN_PAIRS} to {MAX_PAIRS} pairs")
    paired = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if len(paired) < MIN_PAIRS:
        shown = seeds if isinstance(seeds, int) else " ".join(map(str, seeds))
        raise PlanError(
            f"seeds = {shown}: {len(paired)} pair{'s' * (len(paired) != 1)}; a claim needs at least {MIN_PAIRS}. "
            "With fewer, a lucky seed and a better config look the same"
        )
    if a.family != b.family:
        raise PlanError(f"A is of family {a.family!r}, B of {b.family!r}: only one family can be compared with itself")
    names = (a.label, b.label) if a.label != b.label else (f"{a.label} (A)", f"{b.label} (B)")
    fields = {
        "name": _safe_name(f"{a.label}-vs-{b.label}"),
        "family": a.family,
        "control": names[0],
        "presets": [names[1]],
        "configs": {name: side.variant.model_dump(exclude_none=True) for name, side in zip(names, (a, b), strict=True)},
        "num_candidates": 1,
        "seeds": paired,
        "eval_every": even_steps(steps) if eval_every is None else eval_every,
        "stages": [{"until_step": steps, "num_seeds": len(paired)}],
        "compare": dict(compare or {}),
    }
    return _resolved(fields, overrides, "ab")


def _resolved(fields: dict[str, Any], overrides: Sequence[str], where: str) -> Plan:
    for text in overrides:
        override(fields, text)
    return resolve_plan(fields, where=where)


def _safe_name(text: str) -> str:
    """``text`` as the name of a run."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80]
