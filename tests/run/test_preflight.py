"""What the checks before launch find is said at once, and only what refuses keeps a run from starting."""

from __future__ import annotations

import pytest

from trainables.api import Finding
from tune_rh.errors import PreflightRefused
from tune_rh.run.preflight import refuse


def test_all_that_refuse_are_said_at_once_and_the_same_thing_once() -> None:
    leak = Finding("T05", "task.evaluate", "differs the second time")
    findings = [
        leak,
        Finding("P21", "save_every", "little room", "warn"),
        Finding("T01", "task", "cannot be made"),
        leak,
    ]
    with pytest.raises(PreflightRefused) as refused:
        refuse(findings)
    assert str(refused.value).splitlines() == [
        "T05 task.evaluate: differs the second time",
        "T01 task: cannot be made",
    ]


def test_warnings_refuse_nothing() -> None:
    refuse([Finding("P21", "save_every", "little room", "warn")])
