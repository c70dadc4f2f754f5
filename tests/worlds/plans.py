"""Plans over the scripted family, and histories of events, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from tune_rh.plan.file import resolve_plan
from tune_rh.plan.schema import Plan
from tune_rh.record.events import Event
from tune_rh.record.history import History


def fields(**changes: Any) -> dict[str, Any]:
    """A small, complete plan as a mapping; ``changes`` replace keys."""
    is_search = changes.get("compare") is None and changes.get("unit") != "member"
    drawn = {"space": "tests.worlds.family:SPACE", "sampler": {"startup": 4}} if is_search else {}
    return {
        "name": "scripted",
        "family": "tests.worlds.family:FAMILY",
        "control": "control",
        "num_candidates": 9,
        "seeds": [7, 42, 1337],
        "eval_every": 10,
        "stages": [
            {"until_step": 20, "num_seeds": 2},
            {"until_step": 60, "num_seeds": 2},
            {"until_step": 120, "num_seeds": 3},
        ],
        "scoring": {"band": 0.0, "extra_seeds": 0.0},
        **drawn,
        **changes,
    }


def plan(**changes: Any) -> Plan:
    """`fields`, validated."""
    return resolve_plan(fields(**changes))


def health_bounds(*after_steps: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Up to two bounds of ``rules.health`` on the metric ``pulse``, each from after one of these steps on."""
    bound = st.fixed_dictionaries(
        {
            "metric": st.just("pulse"),
            "at_least": st.sampled_from([0.25, 0.5, 1.0]),
            "in_a_row": st.integers(1, 3),
            "after_step": st.sampled_from(after_steps),
            "required": st.booleans(),
            "stops": st.booleans(),
        }
    )
    return st.lists(bound, max_size=2)


def fold(plan: Plan, events: Iterable[Event]) -> History:
    """The history of ``events`` under ``plan``."""
    history = History(plan)
    for event in events:
        history.apply(event)
    return history
