"""The three kinds of plan: told apart by their fields, each without the fields of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.worlds.plans import plan
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan, load_plan
from tune_rh.plan.kinds import Comparison, Race, Search
from tune_rh.plan.schema import Plan

STAGES = [{"until_step": 20, "num_seeds": 3, "top": 1}, {"until_step": 60, "num_seeds": 3}]
RACE: dict[str, Any] = {"unit": "member", "num_candidates": 0, "stages": STAGES}
PAIRS: dict[str, Any] = {
    "presets": ["good"],
    "num_candidates": 1,
    "seeds": list(range(8)),
    "stages": [{"until_step": 20, "num_seeds": 8}],
    "compare": {},
}
KINDS: dict[type[Plan], dict[str, Any]] = {Search: {}, Race: RACE, Comparison: PAIRS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_kind_is_told_by_its_fields_and_comes_back_from_its_file(kind: type[Plan], tmp_path: Path) -> None:
    made = plan(**KINDS[kind])
    assert type(made) is kind
    path = tmp_path / "plan.toml"
    path.write_text(made.toml())
    again = load_plan(path)
    assert again == made
    assert again.fingerprint() == made.fingerprint()


@pytest.mark.parametrize(
    ("name", "kind"), [("quickstart", Search), ("lean-moe", Search), ("e55-race", Race), ("e4-vs-e5", Comparison)]
)
def test_the_plans_that_ship_are_of_their_kinds(name: str, kind: type[Plan]) -> None:
    assert type(load_plan(find_plan(name))) is kind


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("space", "tests.worlds.family:SPACE"),
        ("references", ["good"]),
        ("sampler", {"name": "random"}),
        ("budget", {"max_steps": 100}),
        ("eta", 2.0),
        ("gates", "stop"),
        ("audit", 1),
        ("follow_ups", [{"after": 0, "changes": [{"rate": 0.2}]}]),
        ("rules", {"gap": {}}),
        ("rules", {"promote": {}}),
    ],
)
@pytest.mark.parametrize("kind", [Race, Comparison], ids=lambda kind: kind.kind)
def test_what_only_a_search_has_is_refused_elsewhere(kind: type[Plan], field: str, value: object) -> None:
    plan(**{field: value})
    named = f"{field}.{next(iter(value))}" if field == "rules" and isinstance(value, dict) else field
    with pytest.raises(PlanError, match=f"{named} = .*: is of a search; a race or a comparison has none"):
        plan(**KINDS[kind], **{field: value})


def test_only_a_race_says_member_and_only_a_comparison_compares() -> None:
    with pytest.raises(PlanError, match=r"unit = 'member': Input should be 'candidate'"):
        plan(**{**PAIRS, "unit": "member"})
    with pytest.raises(PlanError, match=r"presets = .*: there is no such key|presets = .*: is of a search"):
        plan(**RACE, presets=["good"])
    with pytest.raises(PlanError, match=r"num_candidates = 2: a race has one config, `control`"):
        plan(**{**RACE, "num_candidates": 2})


@pytest.mark.parametrize("num", [1, 7, 10, 30])
def test_a_quota_is_a_share_of_what_has_arrived(num: int) -> None:
    terms = plan(eta=3.0).gate(0)
    assert (terms.quota(num), terms.quota(num, up=True)) == (num // 3, -(-num // 3))
    assert terms.quota(num, times=1.5) == num // 2
    assert plan(**RACE).gate(0).quota(num, up=True) == 0
