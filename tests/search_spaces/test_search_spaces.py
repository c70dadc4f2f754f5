"""What a replay refuses, and which presets a space can draw; the laws of all spaces are in `tune_rh.testing`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

from search_spaces.api import OutsideSpace, RandomTrial, ReplayTrial, Unsatisfiable
from search_spaces.registry import get_space, outside
from trainables.registry import get_family


@pytest.mark.parametrize(
    ("family", "space", "presets"),
    [
        ("spacing_mdn", "e55", {"e55"}),
        ("spacing_mdn", "architecture", {"e0", "e1", "e2", "e3", "e4"}),
        ("spacing_mdn", "cpu-quickstart", {"cpu-e0", "cpu-ar32"}),
        ("spacing_mdn", "class-1", set()),
        ("shared_moe", "routing", {"control"}),
        ("shared_moe", "routing-half-params", {"half-matched"}),
        ("shared_moe", "routing-half-matched", {"half-matched"}),
        ("shared_moe", "cpu-tiny", {"cpu-tiny"}),
    ],
)
def test_presets_that_a_space_can_draw(family: str, space: str, presets: set[str]) -> None:
    assert get_family(family).presets.keys() - outside(family, get_space(family, space)).keys() == presets


@pytest.mark.parametrize(
    ("family", "space", "preset", "reason"),
    [
        ("spacing_mdn", "architecture", "tiny", "depth = 1: the space allows 4, 6, 8"),
        ("spacing_mdn", "e55", "e4", "eval_slot_id_mode = 'permute_per_batch': the space has 'fixed'"),
        ("shared_moe", "routing-half-params", "control", "num_experts = 40: the space has 7"),
        ("shared_moe", "routing", "half-notes", "width = 512: the space has 1024"),
    ],
)
def test_a_preset_that_no_draw_gives_says_which_field_is_in_the_way(
    family: str, space: str, preset: str, reason: str
) -> None:
    assert outside(family, get_space(family, space))[preset] == reason


@pytest.mark.parametrize(
    ("config", "ask", "allowed"),
    [
        ({"lr": 0.5}, ("float", "lr", 1e-4, 1e-2), "0.0001 to 0.01"),
        ({"lr": float("nan")}, ("float", "lr", 1e-4, 1e-2), "0.0001 to 0.01"),
        ({"lr": True}, ("float", "lr", 0.0, 2.0), "0.0 to 2.0"),
        ({}, ("float", "lr", 0.0, 2.0), "0.0 to 2.0"),
        ({"depth": 9}, ("int", "depth", 1, 8), "1 to 8"),
        ({"depth": 2.0}, ("int", "depth", 1, 8), "1 to 8"),
        ({"mode": "on"}, ("categorical", "mode", ("off", "mean")), "'off', 'mean'"),
        ({"flag": 1}, ("categorical", "flag", (True, False)), "True, False"),
    ],
)
def test_a_replay_refuses_by_name_value_and_what_is_allowed(
    config: dict[str, Any], ask: tuple[Any, ...], allowed: str
) -> None:
    kind, name, *arguments = ask
    with pytest.raises(OutsideSpace) as caught:
        getattr(ReplayTrial(config), f"suggest_{kind}")(name, *arguments)
    assert (caught.value.name, caught.value.allowed) == (name, allowed)
    assert str(caught.value).startswith(f"{name} = ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_cannot_be_solved_for_crosses_processes_with_its_words() -> None:
    error = Unsatisfiable("num_experts", 2, "0.45 to 0.55")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (Unsatisfiable, "num_experts = 2: the space allows 0.45 to 0.55")


def test_a_replay_keeps_to_the_grid() -> None:
    assert ReplayTrial({"p": 0.3}).suggest_float("p", 0.0, 1.0, step=0.1) == 0.3
    assert ReplayTrial({"n": 6}).suggest_int("n", 2, 10, step=4) == 6
    with pytest.raises(OutsideSpace, match=r"in steps of 0\.1"):
        ReplayTrial({"p": 0.35}).suggest_float("p", 0.0, 1.0, step=0.1)
    with pytest.raises(OutsideSpace, match="in steps of 4"):
        ReplayTrial({"n": 7}).suggest_int("n", 2, 10, step=4)


def test_random_draws_repeat_by_seed_and_stay_in_bounds() -> None:
    def draw(seed: int) -> list[Any]:
        trial = RandomTrial(seed)
        return [
            trial.suggest_float("a", 1e-5, 1e-1, log=True),
            trial.suggest_float("b", 0.0, 1.0, step=0.25),
            trial.suggest_int("c", 1, 9, step=2),
            trial.suggest_int("d", 1, 1000, log=True),
            trial.suggest_categorical("e", ("x", "y")),
        ]

    draws = [draw(seed) for seed in range(100)]
    assert draws == [draw(seed) for seed in range(100)]
    for a, b, c, d, e in draws:
        assert 1e-5 <= a <= 1e-1
        assert b in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert c in (1, 3, 5, 7, 9)
        assert 1 <= d <= 1000
        assert e in ("x", "y")


def test_spaces_load_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; from search_spaces.registry import spaces_of; from trainables.registry import FAMILIES; "
        "assert all(spaces_of(family) for family in FAMILIES); "
        "print([name for name in ('torch', 'numpy', 'pydantic', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
