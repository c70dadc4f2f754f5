"""What a plan costs before it runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worlds.plans import plan
from tune_rh.plan.cost import StageCost, expected, follow_up_steps, ungated_steps


def test_the_quota_stage_by_stage() -> None:
    # 9 candidates and the control; a third goes on; the third seed of the last stage trains from step 0.
    assert expected(plan()) == [
        StageCost(20, 2, 10, 20, 10 * 2 * 20),
        StageCost(60, 2, 4, 8, 4 * 2 * 40),
        StageCost(120, 3, 2, 6, 2 * (2 * 60 + 120)),
    ]


@pytest.mark.parametrize(
    ("first", "entering"),
    [
        ({}, 4),
        ({"eta": 2.0}, 6),
        ({"eta": 100.0}, 2),
        ({"eta": 100.0, "at_least": 4}, 5),
        ({"eta": 1.1, "at_most": 2}, 3),
        ({"top": 7}, 8),
        ({"top": 50}, 10),
        ({"eta": 100.0, "at_least": 50}, 10),
    ],
)
def test_what_bounds_a_gate_bounds_the_cost(first: dict[str, Any], entering: int) -> None:
    stages = [{"until_step": 20, "num_seeds": 1, **first}, {"until_step": 60, "num_seeds": 1}]
    costs = expected(plan(stages=stages))
    assert [c.num_candidates for c in costs] == [10, entering]
    assert costs[1].steps == entering * 40


def test_one_stage_costs_what_it_costs_without_gates() -> None:
    alone = plan(stages=[{"until_step": 50, "num_seeds": 3}])
    assert sum(c.steps for c in expected(alone)) == ungated_steps(alone) == 10 * 3 * 50


def test_gates_never_cost_more() -> None:
    assert ungated_steps(plan()) == 10 * 3 * 120
    assert ungated_steps(plan(), num_candidates=4) == 4 * 3 * 120
    assert sum(c.steps for c in expected(plan())) < ungated_steps(plan())
    everybody = [
        {"until_step": 20, "num_seeds": 2, "top": 9},
        {"until_step": 60, "num_seeds": 2, "top": 9},
        {"until_step": 120, "num_seeds": 3},
    ]
    assert sum(c.steps for c in expected(plan(stages=everybody))) == ungated_steps(plan())


def test_follow_ups_run_every_stage_below_the_one_they_enter_and_compete_from_there() -> None:
    stages = [
        {"until_step": 20, "num_seeds": 1, "top": 2},
        {"until_step": 60, "num_seeds": 1, "eta": 2.0},
        {"until_step": 120, "num_seeds": 1},
    ]
    tables: list[dict[str, Any]] = [
        {"after": 0, "changes": [{"rate": 0.1}]},
        {"after": 0, "enters": 1, "changes": [{"rate": 0.2}, {"rate": 0.3}]},
        {"after": 0, "enters": 2, "changes": [{"rate": 0.4}]},
    ]
    planned = plan(num_candidates=3, stages=stages, follow_ups=tables, references=["good"])
    # Control, reference, three candidates and all four follow-ups; the best two of four, three beside them; of those
    # four that compete two, and the one that enters last.
    assert [row.num_candidates for row in expected(planned)] == [2 + 3 + 4, 2 + 2 + 3, 2 + 2 + 1]
    steps = [9 * 20, 7 * 40, 5 * 60]
    assert [row.steps for row in expected(planned)] == steps
    plain = plan(num_candidates=3, stages=stages, references=["good"])
    assert [row.num_candidates for row in expected(plain)] == [5, 4, 3]
    assert follow_up_steps(planned) == sum(steps) - (5 * 20 + 4 * 40 + 3 * 60)
    assert follow_up_steps(plain) == 0
    assert ungated_steps(planned) == 9 * 120
