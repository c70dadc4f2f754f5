"""The configs that a plan names."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from trainables.registry import build_config, get_family, resolve
from tune_rh.errors import PlanError
from tune_rh.plan.file import explain
from tune_rh.plan.schema import Plan, Variant


def named_config(plan: Plan, name: str) -> tuple[Any, int | None]:
    """The resolved config called ``name`` (one of ``[configs]``, else a preset), and its own patience if it has one.

    Raises:
        PlanError: the config's own checks refuse it, field by field.
    """
    variant = plan.configs.get(name) or Variant(preset=name)
    try:
        family = get_family(plan.family)
        config = build_config(family, preset=variant.preset, written=[variant.fields, plan.fixed])
    except ValidationError as error:
        where = f"config {name!r}" if name in plan.configs else f"preset {name!r}"
        raise PlanError(
            explain(error, f"{where} with fixed" if plan.fixed else where, resolve(family.config))
        ) from error
    return config, variant.patience_steps
