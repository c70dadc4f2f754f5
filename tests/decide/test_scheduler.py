"""A scheduler from outside: named in the plan, it decides in place of the plan's own, with every runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds.plans import plan
from tests.worlds.records import finish, make, of
from tests.worlds.scripted import Simulation, curve
from tune_rh.decide.halving import HalvingScheduler
from tune_rh.decide.scheduler import Decision, Finish
from tune_rh.errors import PlanError
from tune_rh.record.events import MemberId, Promoted
from tune_rh.record.history import History
from tune_rh.run.preflight import check_plan

OWN = "tests.decide.test_scheduler:FirstStageOnly"


class FirstStageOnly(HalvingScheduler):
    """The search ends where a candidate would pass a gate."""

    def next(self, history: History, prefer: MemberId | None = None) -> Decision:
        decision = super().next(history, prefer)
        return Finish() if isinstance(decision, Promoted) else decision


def test_a_scheduler_from_outside_decides_in_place_of_the_plans_own() -> None:
    own, house = Simulation(plan(scheduler=OWN), curve).run(), Simulation(plan(), curve).run()
    assert own.promoted() == []
    assert house.promoted()
    assert isinstance(own.decisions[-1].decision, Finish)
    assert len(own.history.candidates) < len(house.history.candidates)
    assert {m.step for c in own.history.candidates.values() for m in c.members.values()} == {20}


def test_a_scheduler_from_outside_runs_on_disk_and_is_kept_in_the_plan(tmp_path: Path) -> None:
    paths = make(tmp_path / "run", scheduler=OWN)
    history = finish(paths)
    assert history.plan.scheduler == OWN
    assert of(paths, Promoted) == []
    finish(paths)  # and resumes
    assert of(paths, Promoted) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nosuch", r"cannot be imported .*; known: halving, value, race, comparison, or 'module:attr'"),
        ("tests.worlds.family:NOTHING", "cannot be imported"),
        ("race", "is not for a search, which takes 'halving' or 'value'"),
        ("tests.worlds.family:NoData", "is no class with next and verdict"),
        ("tests.worlds.family:SOURCE", "is no class with next and verdict"),
    ],
)
def test_a_scheduler_that_is_none_is_refused_before_launch(name: str, reason: str) -> None:
    with pytest.raises(PlanError, match=f"scheduler = '{name}': {reason}"):
        check_plan(plan(scheduler=name))
