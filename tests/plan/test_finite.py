"""No number in a plan is infinite, NaN, or too large to be a float."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import ValidationError

from tune_rh.plan import kinds
from tune_rh.plan.rules import PlanTable


def tables(table: type[PlanTable] = PlanTable) -> Iterator[type[PlanTable]]:
    yield table
    for kind in table.__subclasses__():
        yield from tables(kind)


FLOATS = [
    (table, name)
    for table in tables()
    for name, field in table.model_fields.items()
    if float in (field.annotation, *get_args(field.annotation))
]


@pytest.mark.parametrize("value", [10**400, math.inf, -math.inf, math.nan], ids=["10**400", "inf", "-inf", "nan"])
@pytest.mark.parametrize(("table", "name"), FLOATS, ids=[f"{table.__name__}.{name}" for table, name in FLOATS])
def test_numbers_in_a_plan_are_finite(table: type[PlanTable], name: str, value: float) -> None:
    with pytest.raises(ValidationError) as caught:
        table.model_validate({name: value})
    assert (name,) in [error["loc"] for error in caught.value.errors()]


def test_all_kinds_of_plan_are_among_them() -> None:
    assert {kinds.Search, kinds.Race, kinds.Comparison} < set(tables())
    assert (kinds.Search, "eta") in FLOATS
