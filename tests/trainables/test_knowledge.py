"""What models may know: who may be held against whom, and what each kind of `spacing_mdn` says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.baselines import kept, within
from analysis.diagnose.api import Baseline
from trainables.knowledge import Knowledge, knowledge_of, span
from trainables.spacing_mdn.config import known

MLP = {"layout": "mlp", "context": 32, "eval_tail": 32}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "class I, past 256"),
        ({"ar_features": 32}, "class I, past 288"),
        ({"height_input": True}, "class II, past 256"),
        ({"height_input": True, "height_rounding": 0.0}, "class III, past 256"),
        ({"ar_bank": 1024}, "class I, past 1,279"),
        ({**MLP, "ar_bank": 4096}, "class I, past 4,096"),
        ({**MLP, "prime_lines": 100}, "class II, past 256"),
        ({**MLP, "prime_lines": 100, "height_rounding": 1e-6}, "class III, past 256"),
        ({**MLP, "prime_lines": 100, "prime_window": 1024, "ar_bank": 256}, "class II, past 1,024"),
        ({**MLP, "prime_lines": 100, "prime_phases": "exact"}, "class III, past 33"),
    ],
)
def test_what_a_config_may_know(fields: dict[str, Any], expected: str) -> None:
    assert str(knowledge_of("spacing_mdn", fields)) == expected


def test_families_that_do_not_say_know_nothing_of_it() -> None:
    assert knowledge_of("nsa", {}) is None
    assert knowledge_of("no_such_family", {}) is None
    assert knowledge_of("spacing_mdn", {"field_of_another_version": 1}) is None


def test_one_covers_another_by_class_and_past() -> None:
    two = known("II", 256)
    assert two.covers(two)
    assert two.covers(known("I", 100))
    assert not two.covers(known("I", 1024))
    assert not two.covers(known("III", 33))


def test_a_span_names_its_ends() -> None:
    assert span([known("II", 1024), None, known("I", 64)]) == "class I to class II, past 64 to 1,024"
    assert span([known("II", 1024)]) == "class II, past 1,024"
    assert span([None]) == ""


def test_a_model_is_held_against_baselines_that_know_no_more(tmp_path: Any) -> None:
    rows = [
        Baseline("silent", 0.0, ""),
        *(Baseline(f"{name}{past}", 0.0, "", known(name, past)) for name, past in CASES),
    ]
    fair, beyond = within(rows, known("II", 256))
    assert [row.name for row in fair] == ["silent", "I256", "II64"]
    assert [row.name for row in beyond] == ["I1024", "II1024", "III33"]
    assert within(rows, None) == (rows, [])
    path = tmp_path / "baselines.json"
    assert kept(path, "d", lambda: rows) == rows
    assert kept(path, "d", list) == rows  # as they were written


CASES = (("I", 256), ("II", 64), ("I", 1024), ("II", 1024), ("III", 33))


def test_it_is_spelt_as_it_is_read() -> None:
    assert str(Knowledge(3, "class II", 1024)) == "class II, past 1,024"
