"""What a plan names: one of a table, or ``"module:attr"`` from outside. It is imported when asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from trainables.errors import Untrusted
from trainables.registry import resolve, resolve_named
from tune_rh.errors import PlanError


def named_class(field: str, name: str, table: Mapping[str, str], methods: Collection[str]) -> Any:
    """The class that ``field`` of a plan calls ``name``: a key of ``table``, or ``"module:attr"``.

    Raises:
        PlanError: there is none of that name, or it lacks one of ``methods``.
    """
    named = named_object(field, name, table)
    if not isinstance(named, type) or not all(callable(getattr(named, method, None)) for method in methods):
        raise PlanError(f"{field} = {name!r}: is no class with {' and '.join(methods)}")
    return named


def named_object(field: str, name: str, table: Mapping[str, str]) -> Any:
    """What ``field`` of a plan calls ``name``; raises PlanError if there is none of that name."""
    try:
        if name not in table and ":" not in name:
            raise ValueError("there is none of that name")
        return resolve(table[name]) if name in table else resolve_named(name)
    except Untrusted as error:
        raise PlanError(f"{field} = {error}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanError(
            f"{field} = {name!r}: cannot be imported ({error}); known: {', '.join(table)}, or 'module:attr'"
        ) from error
