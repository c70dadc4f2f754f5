"""What a search goes by of which only the length of a full run is given: gates that learn, and seeds at full length.

These settings won on recorded curves (``docs/decisions/0012``, ``0014``). A plan with stages of its own keeps to them.
"""

from __future__ import annotations

from typing import Any

from tune_rh.errors import PlanError
from tune_rh.plan.rules import MAX_COUNT

_MOST, _FEWEST = 40, 20
"""Evaluations of a full run; the first gate comes with the first of them."""
_ENDS = (1 / 9, 1 / 4, 1 / 2, 1.0)
_SEEDS = 3


def learning(steps: int, num_seeds: int = _SEEDS) -> dict[str, Any]:
    """The keys of a plan whose full run has ``steps`` optimiser steps, as a plan file has them.

    Gates near 1/20, 1/9, 1/4 and 1/2 of the run, with one seed; then the last step with one seed, with two and with
    three, as far as there are ``num_seeds``. All gates learn from the run how many they let through.

    Raises:
        PlanError: ``steps`` has no divisor that gives 20 to 40 evaluations.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or not _FEWEST <= steps <= MAX_COUNT:
        raise PlanError(f"steps = {steps!r}: allowed are whole numbers from {_FEWEST} on, the length of a full run")
    num = next((num for num in range(_FEWEST, _MOST + 1) if steps % num == 0), None)
    if num is None:
        raise PlanError(
            f"steps = {steps}: is no multiple of a number from {_FEWEST} to {_MOST}, as evaluations need; "
            f"take {steps // _FEWEST * _FEWEST}, or give stages"
        )
    every = steps // num
    ends = sorted({every, *(round(part * num) * every for part in _ENDS)})
    rows = [*((end, 1) for end in ends), *((steps, seeds) for seeds in range(2, min(_SEEDS, num_seeds) + 1))]
    return {
        "stages": [{"until_step": end, "num_seeds": seeds} for end, seeds in rows],
        "eval_every": every,
        "gates": "adaptive",
        "eta": 2.0,
        "scoring": {"band": 0.0, "extra_seeds": 0.0},
    }
