"""Whether a plan's follow-ups can be made, before anything is launched: over configs that may win at a gate.

A follow-up that no winner allows is a mistake in the plan. One that some winners allow is not: if another wins, the
search notes why it was passed over. Not here: the configs themselves (`tune_rh.run.preflight`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from trainables.registry import build_config, get_family
from tune_rh.decide import follow_ups
from tune_rh.plan.file import explain
from tune_rh.plan.kinds import Search

Named = tuple[str, Any]
_MOST = 200
"""So many configs are tried as winners: each table multiplies them."""


def check_follow_ups(plan: Search, winners: Sequence[Named]) -> list[str]:
    """A line for each change that gives a valid config over no winner, on other data, or of a fixed field.

    Args:
        plan: with ``follow_ups``.
        winners: configs that may win, with what they are called; follow-ups of earlier tables may win as well.
    """
    problems: list[str] = []
    bases = list(winners)
    for i, table in enumerate(plan.follow_ups):
        where, found = f"follow_ups[{i}]", list[Named]()
        for fields in table.changes:
            problems += [f"{where}: {name} is in [fixed], for everybody" for name in fields if name in plan.fixed]
            made, refused = _over(plan, bases, fields)
            other = {config.data for _, config in made} - {config.data for _, config in winners}
            problems += [f"{where}: data = {name!r} is another data set than the plan's" for name in sorted(other)]
            if not made:
                problems.append(f"{where}: no config that may win allows it\n{refused[0]}")
            found += made
        bases = [*bases, *found][:_MOST]
    return problems


def _over(plan: Search, bases: Sequence[Named], fields: Mapping[str, Any]) -> tuple[list[Named], list[str]]:
    """What becomes of the change over each base: configs, and why not."""
    made, refused = [], []
    for name, base in bases:
        label = follow_ups.label(name, fields)
        try:
            made.append((label, build_config(get_family(plan.family), base.model_dump(mode="json"), fields)))
        except ValidationError as error:
            refused.append(explain(error, label))
    return made, refused
