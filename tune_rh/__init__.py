"""tune-rh decides what runs next, and runs it. Importing this package loads nothing heavy.

The packages that ship beside this one are found beside it, whatever stands first on the path (``docs/decisions/0007``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.given.attributes import Task
    from tune_rh.api import (
        Run,
        answer,
        baseline,
        check,
        compare,
        diagnostic,
        load,
        load_plan,
        race,
        resume,
        search,
        simulate,
    )

__version__ = "0.1.0"
__all__ = [
    "Run",
    "Task",
    "answer",
    "baseline",
    "check",
    "compare",
    "diagnostic",
    "load",
    "load_plan",
    "race",
    "resume",
    "search",
    "simulate",
]

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SIBLINGS = ("analysis", "search_spaces", "trainables")


class _SiblingFinder:
    """Finds `_SIBLINGS` in `_ROOT`, and nothing else."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [_ROOT], target) if name in _SIBLINGS else None


def _refuse_others() -> None:
    """Raise ImportError if another module was imported under the name of a sibling before this package was."""
    for name in _SIBLINGS:
        module = sys.modules.get(name)
        if module is None:
            continue
        found = next(iter(getattr(module, "__path__", [])), module.__file__) or "memory"
        ours = os.path.join(_ROOT, name)
        if os.path.realpath(found) != os.path.realpath(ours):
            raise ImportError(
                f"`{name}` is imported from {found}, and tune_rh needs the one in {ours}: "
                f"import tune_rh first (`{name}` is then that one), or give yours another name"
            )


_refuse_others()
# First in line: `python -m`, PYTHONPATH and Ray's workers put the user's folder before the one with our packages.
sys.meta_path.insert(0, _SiblingFinder)


def __getattr__(name: str) -> Any:
    """What `tune_rh.api` offers, imported when it is first asked for; and the base class of tasks."""
    if name == "Task":
        from trainables.given.attributes import Task

        return Task
    if name in __all__:
        from tune_rh import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
