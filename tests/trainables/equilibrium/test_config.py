"""What a config refuses, by field, value and what is allowed; what preflight says of it; what spaces draw."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from search_spaces.api import RandomTrial
from search_spaces.equilibrium import _LONG_POINTS, _RADII, SPACES
from trainables.equilibrium import FAMILY
from trainables.equilibrium.accounting import PREFLIGHT
from trainables.equilibrium.config import EquilibriumConfig, least_radius
from trainables.registry import build_config


@pytest.mark.parametrize("preset", sorted(FAMILY.presets))
def test_every_preset_builds(preset: str) -> None:
    assert isinstance(build_config(FAMILY, preset=preset), EquilibriumConfig)


HOLO: dict[str, Any] = {"estimator": "holo"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_heads": 5}, "n_heads = 5: allowed is a divisor of width = 48"),
        ({**HOLO, "holo_points": 3}, "holo_points = 3: allowed is an even number: nudges come in pairs of both signs"),
        (
            {**HOLO, "holo_points": 8},
            "holo_radius = 0.1: allowed is at least 0.17 with holo_points = 8: below, rounding",
        ),
        ({**HOLO, "amp": "bf16"}, "amp = 'bf16': allowed is 'auto' or 'off' with estimator = 'holo'"),
        ({"warm_estimator": "holo", "warm_switch_step": 5, "holo_points": 3}, "holo_points = 3: allowed is an even"),
        ({"t2": 4}, "t2 = 4: allowed is at least select_every = 5"),
        ({"jr_mode": "controller", "jr_floor": 20.0}, "jr_floor = 20.0: allowed is at most jr_max = 16"),
        ({"jr_mode": "controller", "jr": 17.0}, "jr = 17.0: allowed is jr_floor = 0.001 to jr_max = 16"),
        ({"mode": "energy"}, "tied = False: allowed is True with mode = 'energy': its matrices come in pairs"),
        ({"mode": "mono", "tied": True}, "tied = True: allowed is False with mode = 'mono'"),
        ({"mode": "energy", "tied": True, "qk_norm": True}, "qk_norm = True: allowed is False with mode = 'energy'"),
        ({"estimator": "bptt", "bptt_steps": 41}, "bptt_steps = 41: allowed is at most t1 = 40"),
        ({"t1_refine": 30}, "t1_refine = 30: allowed is at least t1 = 40"),
        ({"kappa": 4.0, "eps": 0.5}, "eps = 0.5: allowed is below 2 / kappa = 0.5: from there on no state settles"),
        ({"kappa": 4.0, "eps_nudged": 0.6}, "eps_nudged = 0.6: allowed is below 2 / kappa = 0.5"),
    ],
)
def test_values_that_do_not_fit_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        build_config(FAMILY, {"jr_floor": 0.001, "holo_radius": 0.1, **fields}, preset="cpu-tiny")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"holo_points": 1},
        {"holo_radius": 0.0},
        {"beta": 0.0},
        {"t1": 0},
        {"jr": 0.0},
        {"kappa": 0.0},
        {"ema": 1.0},
        {"mode": "relu"},
        {"estimator": "reinforce"},
        {"navg": 0},
    ],
)
def test_values_out_of_bounds_are_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        build_config(FAMILY, fields, preset="cpu-tiny")


def test_what_an_estimator_does_not_use_is_not_held_against_it() -> None:
    build_config(FAMILY, {"estimator": "implicit", "holo_points": 3, "bptt_steps": 500, "t2": 3}, preset="cpu-tiny")


def findings(**fields: Any) -> list[str]:
    assert PREFLIGHT.check is not None
    return [str(finding) for finding in PREFLIGHT.check(build_config(FAMILY, fields, preset="cpu-tiny"))]


def test_what_cannot_settle_or_stay_normal_is_warned_of() -> None:
    assert findings() == []
    assert findings(t1=20) == []
    (short,) = findings(t1=10)
    assert short.startswith("P91 t1: 10: of a state 0.056 is left to come after so many steps of eps = 0.25 with kappa")
    assert findings(t1=10, anderson=5) == []
    (frozen,) = findings(estimator="aep_frozen", jr_mode="off")
    assert frozen.startswith("P92 estimator: 'aep_frozen': freezes the Jacobian")
    assert "non-normality of 0.9 (H37)" in frozen
    assert findings(estimator="aep_frozen", jr_mode="off", mode="mono") == []


def test_the_least_radius_of_the_spaces_is_allowed() -> None:
    assert all(_RADII[0] >= least_radius(points) for points in _LONG_POINTS)


def test_a_space_asks_only_for_what_plays_a_part() -> None:
    asked: dict[str, Counter[str]] = {}
    for seed in range(300):
        trial = RandomTrial(seed)
        fields = SPACES["estimators"].suggest(trial)
        asked.setdefault(fields["estimator"], Counter()).update(trial.params.keys())
    assert set(asked) == {
        "bptt", "implicit", "ep", "aep_frozen", "aep_frozen_rc", "aep_tracking", "aep_dyadic", "holo",
    }  # fmt: skip
    assert {"beta", "t2", "holo_points"} & asked["bptt"].keys() == set()
    assert {"beta", "holo_points", "select"} & asked["implicit"].keys() == set()
    assert {"beta", "bptt_parts"} & asked["holo"].keys() == set()
    assert {"holo_points", "bptt_parts"} & asked["aep_dyadic"].keys() == set()
    assert all({"lr", "t1", "navg", "mode"} <= names.keys() for names in asked.values())
