"""Classes that a plan names: one of a table, or ``"module:attr"`` from outside. They are imported when asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from trainables.errors import Untrusted
from trainables.registry import resolve, resolve_named
from tune_rh.errors import PlanError


def named_class(field: str, name: str, table: Mapping[str, str], methods: Collection[str]) -> Any:
    """The class that ``field`` of a plan calls ``name``.

    Args:
        field: for the message of an error.
        name: a key of ``table``, or ``"module:attr"``.
        table: name -> ``"module:attr"``.
        methods: what the class must have.

    Raises:
        PlanError: there is none of that name, or it is no such class.
    """
    try:
        made = resolve(table[name]) if name in table else resolve_named(name)
    except Untrusted as error:
        raise PlanError(f"{field} = {error}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanError(
            f"{field} = {name!r}: cannot be imported ({error}); known: {', '.join(table)}, or 'module:attr'"
        ) from error
    if not isinstance(made, type) or not all(callable(getattr(made, method, None)) for method in methods):
        raise PlanError(f"{field} = {name!r}: is no class with {' and '.join(methods)}")
    return made
