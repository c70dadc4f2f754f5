"""The follow-ups of a plan in order, and whether they can be made over the configs that may win at a gate.

A follow-up that no winner allows is a mistake in the plan. It is none where some winners allow it: if another wins, the
search notes why it was passed over. Not here: the configs themselves (`tune_rh.run.preflight`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from trainables.registry import build_config, dataset_of, get_family
from trainables.spelling import meant, spelt
from tune_rh.plan.file import explain
from tune_rh.plan.kinds import FollowUp, Search

Named = tuple[str, Any]
_MOST = 200
"""So many configs are tried as winners: each table multiplies them."""


class Change(NamedTuple):
    """One candidate-to-be: the index of its table, the table, and the config fields in which it is to differ."""

    table: int
    follow_up: FollowUp
    fields: Mapping[str, Any]


def changes(plan: Search) -> list[Change]:
    """All changes in the order in which they are taken."""
    return [Change(i, table, fields) for i, table in enumerate(plan.follow_ups) for fields in table.changes]


def label(parent: str, fields: Mapping[str, Any]) -> str:
    """``c0002 with num_experts = 20``."""
    return f"{parent} with {', '.join(f'{name} = {value}' for name, value in meant(fields).items())}"


def check_follow_ups(plan: Search, winners: Sequence[Named]) -> list[str]:
    """A line for each change that gives a valid config over no winner, on other data, or of a fixed field.

    Args:
        plan: with ``follow_ups``.
        winners: configs that may win, with what they are called; follow-ups of earlier tables may win as well.
    """
    problems: list[str] = []
    bases = list(winners)
    for i, table in enumerate(plan.follow_ups):
        where, allowed = f"follow_ups[{i}]", list[Named]()
        for fields in table.changes:
            problems += [
                f"{where}: {name} is in [fixed], so no candidate may change it" for name in fields if name in plan.fixed
            ]
            configs, refused = _over(plan, bases, fields)
            other = _data(plan, configs) - _data(plan, winners)
            problems += [f"{where}: data = {name!r} is another data set than the plan's" for name in sorted(other)]
            if not configs:
                problems.append(f"{where}: no config that may win allows it\n{refused[0]}")
            allowed += configs
        bases = [*bases, *allowed][:_MOST]
    return problems


def _data(plan: Search, configs: Sequence[Named]) -> set[str]:
    family = get_family(plan.family)
    return {dataset_of(family, config) for _, config in configs}


def _over(plan: Search, bases: Sequence[Named], fields: Mapping[str, Any]) -> tuple[list[Named], list[str]]:
    """What becomes of the change over each base: configs, and why not."""
    configs, refused = [], []
    for name, base in bases:
        called = label(name, fields)
        try:
            configs.append((called, build_config(get_family(plan.family), written=[spelt(base), fields])))
        except ValidationError as error:
            refused.append(explain(error, called))
    return configs, refused
