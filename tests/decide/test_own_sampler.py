"""A sampler from outside: named in the plan, checked before launch, drawing in place of Optuna's."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.api import Space
from tests.worlds.plans import plan
from tests.worlds.records import SMALL, finish, make, of
from tune_rh.decide.samplers import Draw
from tune_rh.errors import PlanError
from tune_rh.plan.kinds import Sampler
from tune_rh.record.events import CandidateAdded
from tune_rh.record.history import History
from tune_rh.run.preflight import check_plan

OWN = "tests.decide.test_own_sampler:Ladder"


class Ladder:
    """Floors a tenth apart, from the plan's seed on."""

    def __init__(self, settings: Sampler) -> None:
        self.settings = settings

    def draw(self, space: Space, history: History, attempt: int = 0) -> Draw:
        return Draw({"floor": (self.settings.seed + history.num_sampled + attempt) / 10}, {}, {})


def test_a_sampler_from_outside_draws_the_candidates(tmp_path: Path) -> None:
    own = plan(sampler={"name": OWN, "seed": 3})
    check_plan(own)
    paths = make(tmp_path / "run", **{**SMALL, "presets": [], "fixed": {}, "sampler": {"name": OWN, "seed": 3}})
    history = finish(paths)
    drawn = [e.config["floor"] for e in of(paths, CandidateAdded) if e.origin == "sampler"]
    assert drawn == [0.3, 0.4, 0.5, 0.6]
    assert history.plan.fingerprint() != own.fingerprint()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "tests.worlds.family:NOTHING",
            r"cannot be imported .*; known: tpe, tpe-extrapolating, random, grid, qmc, or 'module:attr'",
        ),
        ("no.such.module:Sampler", "cannot be imported"),
        ("tests.worlds.family:NoData", "is no class with draw"),
        ("tests.worlds.family:SOURCE", "is no class with draw"),
    ],
)
def test_a_sampler_that_is_none_is_refused_before_launch(name: str, reason: str) -> None:
    with pytest.raises(PlanError, match=f"sampler.name = '{name}': {reason}"):
        check_plan(plan(sampler={"name": name}))
