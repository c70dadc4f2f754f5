"""Plans that are described in Python: which keys they get, and every mistake by its name before a launch."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import tune_rh
from search_spaces.api import Space, Trial
from tests.worlds.family import ScriptedTask
from trainables.registry import get_family
from tune_rh.errors import PlanError
from tune_rh.plan.from_task import plan_of
from tune_rh.plan.kinds import Search
from tune_rh.plan.stages import Stage


def suggest(trial: Trial) -> dict[str, Any]:
    return {"lr": trial.suggest_float("lr", 0.1, 1.0)}


class Unfinished:
    def step(self) -> dict[str, float]:
        return {}


class Small(Unfinished):
    def __init__(self, config: Any) -> None: ...
    def evaluate(self, split: str) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def plan(task: Any = ScriptedTask, fields: dict[str, Any] | None = None, **changes: Any) -> Any:
    described: dict[str, Any] = {
        "space": suggest, "base": {"lr": 0.5}, "objective": "val_acc", "mode": "max", "data": None, "metrics": (),
        "stages": [(60, 2), (180, 2), (400, 3)], "steps": None, "candidates": 10,
    }  # fmt: skip
    return plan_of(task, "mine", fields=fields or {}, **{**described, **changes})


def test_stages_seeds_and_evaluations_are_filled_in() -> None:
    found = plan()
    assert isinstance(found, Search)
    assert found.stages == (
        Stage(until_step=60, num_seeds=2),
        Stage(until_step=180, num_seeds=2),
        Stage(until_step=400, num_seeds=3),
    )
    assert (found.seeds, found.eval_every, found.num_candidates) == ((1, 2, 3), 5, 10)
    assert (found.objective, found.mode, found.control) == ("val_acc", "max", "base")


def test_with_the_length_of_a_run_alone_gates_learn_and_seeds_come_last() -> None:
    found = plan(stages=(), steps=720)
    assert [(stage.until_step, stage.num_seeds) for stage in found.stages] == [
        (36, 1), (72, 1), (180, 1), (360, 1), (720, 1), (720, 2), (720, 3),
    ]  # fmt: skip
    assert (found.gates, found.eta, found.eval_every, found.seeds) == ("adaptive", 2.0, 36, (1, 2, 3))
    assert (found.scoring.band, found.scoring.extra_seeds) == (0.0, 0.0)
    assert (found.num_candidates, found.budget.max_steps) == (10, None)


@pytest.mark.parametrize("steps", [20, 39, 400, 1000, 2 * 17 * 19, 50_000])
def test_whatever_its_length_each_gate_is_near_its_share_and_evaluated(steps: int) -> None:
    found = plan(stages=(), steps=steps)
    ends = sorted({stage.until_step for stage in found.stages})
    assert 20 <= steps // found.eval_every <= 40
    assert all(end % found.eval_every == 0 for end in ends)
    assert ends[0] == found.eval_every
    assert ends[1:] == pytest.approx([steps / 9, steps / 4, steps / 2, steps], abs=found.eval_every / 2)


def test_what_is_given_beside_the_length_of_a_run_counts() -> None:
    found = plan(stages=(), steps=400, fields={"seeds": [7, 8], "gates": "promote", "budget": {"max_steps": 2000}})
    assert (found.seeds, found.gates, found.stages[-1].num_seeds, found.budget.max_steps) == (
        (7, 8),
        "promote",
        2,
        2000,
    )
    assert plan(stages=(), steps=400, fields={"seeds": [7]}).stages[-1].num_seeds == 1
    assert plan(stages=(), steps=400, fields={"scheduler": "value"}).gates == "promote"


def test_a_budget_says_how_many_are_drawn() -> None:
    """Of a drawn candidate 36, 36 / 2, 108 / 4, 180 / 8, 360 / 16, 720 / 32 and 720 / 64 steps: 159.75 in all."""
    found = plan(stages=(), steps=720, candidates=None, fields={"budget": {"max_steps": 7200}})
    assert (found.num_candidates, found.budget.max_steps) == (46, 7200)
    few = plan(stages=(), steps=720, candidates=None, fields={"budget": {"max_steps": 1}})
    assert few.num_candidates == 1
    assert plan(stages=(), steps=720, candidates=9, fields={"budget": {"max_steps": 7200}}).num_candidates == 9


def test_every_key_of_a_plan_may_be_given() -> None:
    fields = {"seeds": (7, 8, 9), "eta": 2.0, "eval_every": 20, "resources": {"cpu": 2}, "sampler": {"name": "random"}}
    found = plan(fields=fields, stages=[Stage(until_step=60, num_seeds=2, top=3), {"until_step": 100, "num_seeds": 3}])
    assert (found.seeds, found.eta, found.eval_every) == ((7, 8, 9), 2.0, 20)
    assert (found.resources.cpu, found.sampler.name, found.stages[0].top) == (2, "random", 3)


def test_a_space_and_rules_over_further_metrics_may_be_given() -> None:
    rules = {"health": [{"metric": "grad", "at_most": 5.0}]}
    assert plan(space=Space(suggest, base="other"), metrics=["grad"], fields={"rules": rules}).rules.health
    found = plan(fields={"rules": rules})
    assert found.rules.health
    assert {metric.name for metric in get_family(found.family).metrics} == {"val_acc", "test_acc", "grad"}


@pytest.mark.parametrize(
    ("keyword", "meant"), [("candidats", "candidates"), ("runer", "runner"), ("resource", "resources"), ("xyz", "")]
)
def test_a_keyword_that_is_none_is_named_with_the_nearest(keyword: str, meant: str) -> None:
    words = f"{keyword}=: there is no such keyword" + (f"; is {meant}= meant" if meant else "$")
    with pytest.raises(PlanError, match=words):
        tune_rh.search(ScriptedTask, space=suggest, base={}, objective="val_loss", **{keyword: 3})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": 3}, "task = 3: is no plan"),
        ({"task": Unfinished}, "Unfinished: has no method evaluate, state_dict, load_state_dict"),
        ({"task": Small}, "Small: is called as Small\\(config, seed=..., device=..., data_dir=...\\), and got an unex"),
        ({"space": 3}, "space = 3: allowed is a function of a trial"),
        ({"base": None}, "base: is a NoneType: allowed are a dict"),
        ({"base": {"model_config": 1}}, "base: model_config: is a name of"),
        ({"objective": None}, "objective = None: the name of a metric"),
        ({"mode": "best"}, "mode = 'best': allowed are 'min' and 'max'"),
        ({"data": "nowhere.csv"}, "data = 'nowhere.csv': no such file"),
        ({"data": 3}, "data = 3: allowed is a file"),
        ({"stages": [60]}, "stages\\[0\\] = 60: allowed is \\(steps, seeds\\)"),
        ({"stages": [("60", 2)]}, "stages\\[0\\] = \\('60', 2\\): allowed"),
        ({"stages": ()}, "steps: missing; how long a full run is"),
        ({"steps": 400}, "steps = 400 and stages are both given"),
        ({"stages": (), "steps": 19}, "steps = 19: allowed are whole numbers from 20 on"),
        ({"stages": (), "steps": 400.0}, "steps = 400.0: allowed are whole numbers"),
        ({"stages": (), "steps": 1009}, "steps = 1009: is no multiple of a number from 20 to 40.*take 1000, or give"),
        ({"candidates": None}, "candidates: missing"),
        ({"candidates": None, "fields": {"budget": {"max_steps": 99}}}, "candidates: missing"),
        ({"candidates": None, "stages": (), "steps": 40}, "candidates: missing"),
        ({"candidates": None, "stages": (), "steps": 40, "fields": {"budget": {"max_steps": "9"}}}, "candidates: miss"),
        ({"space": None}, "no space to draw from"),
        ({"fields": {"candidate": 3}}, "candidate = 3: there is no such key; is 'num_candidates' meant"),
        ({"fields": {"family": "f"}}, "family = 'f': is made from the task"),
        ({"fields": {"seeds": [1]}}, "num_seeds = 2, but the plan has 1 seeds"),
    ],
)
def test_each_mistake_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        plan(**changes)


def test_what_cannot_be_pickled_is_named() -> None:
    lock = threading.Lock()

    def locked(trial: Trial) -> dict[str, Any]:
        with lock:
            return suggest(trial)

    with pytest.raises(PlanError, match=r"space: cannot be pickled.*cannot pickle '_thread.lock'"):
        plan(space=locked)


def test_a_plan_takes_none_of_what_is_for_a_task() -> None:
    with pytest.raises(PlanError, match="space: is for a search over a task"):
        tune_rh.search("e55-race", space=suggest)
    with pytest.raises(PlanError, match="seeds: is for a search over a task"):
        tune_rh.search("e55-race", seeds=[1])
    with pytest.raises(PlanError, match="overrides"):
        tune_rh.search(
            ScriptedTask,
            base={},
            objective="val_loss",
            stages=[(9, 1)],
            candidates=1,
            space=suggest,
            overrides=["seeds=[1]"],
        )
