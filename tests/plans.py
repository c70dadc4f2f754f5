"""Plans over the scripted family, for tests."""

from __future__ import annotations

from typing import Any

from tune_rh.plan import SearchPlan
from tune_rh.plan_file import resolve_plan


def fields(**changes: Any) -> dict[str, Any]:
    """A small, complete plan as a mapping; ``changes`` replace keys."""
    return {
        "name": "scripted",
        "family": "tests.scripted:FAMILY",
        "space": "tests.scripted:SPACE",
        "control": "control",
        "num_candidates": 9,
        "seeds": [7, 42, 1337],
        "eval_every": 10,
        "stages": [
            {"until_step": 20, "num_seeds": 2},
            {"until_step": 60, "num_seeds": 2},
            {"until_step": 120, "num_seeds": 3},
        ],
        "sampler": {"startup": 4},
        "scoring": {"band": 0.0, "extra_seeds": 0.0},
        **changes,
    }


def plan(**changes: Any) -> SearchPlan:
    """`fields`, validated."""
    return resolve_plan(fields(**changes))
