"""What a space asks for, in words: ranges, and the answer that decides whether a parameter is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.api import Space, Trial, Unsatisfiable
from search_spaces.parameters import Parameter, parameters
from search_spaces.registry import get_space


def suggest(trial: Trial) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "depth": trial.suggest_int("depth", 1, 8),
        "width": trial.suggest_int("width", 64, 512, step=64),
        "layout": trial.suggest_categorical("layout", ("none", "prefix", "postfix")),
    }
    if fields["layout"] != "none":
        fields["slots"] = trial.suggest_categorical("slots", (True, False))
        if fields["slots"]:
            fields["dropout"] = trial.suggest_float("dropout", 0.0, 0.3, step=0.1)
    if fields["depth"] > 4:
        fields["norm"] = trial.suggest_categorical("norm", ("pre", None))
    return fields


def test_ranges_and_conditions_are_those_that_the_space_has() -> None:
    found = parameters(Space(suggest, base="any"))
    assert [one.name for one in found[:4]] == ["lr", "depth", "width", "layout"]
    assert set(found) == {
        Parameter("lr", "0.0001 to 0.003, log"),
        Parameter("depth", "1 to 8, whole"),
        Parameter("width", "64 to 512, in steps of 64"),
        Parameter("layout", "none, prefix, postfix"),
        Parameter("slots", "True, False", "layout = prefix or postfix"),
        Parameter("dropout", "0 to 0.3 in steps of 0.1", "slots = True"),
        Parameter("norm", "pre, None", "in some draws"),
    }


def test_what_is_asked_counts_where_nothing_comes_of_it() -> None:
    def refuses(trial: Trial) -> dict[str, Any]:
        raise Unsatisfiable("width", trial.suggest_int("width", 1, 2), "nothing")

    assert parameters(Space(refuses, base="any")) == (Parameter("width", "1 to 2, whole"),)


def test_a_name_that_is_asked_in_two_ways_shows_both() -> None:
    def wavers(trial: Trial) -> dict[str, Any]:
        high = trial.suggest_categorical("high", (1.0, 2.0))
        return {"lr": trial.suggest_float("lr", 0.0, high)}

    *_, lr = parameters(Space(wavers, base="any"))
    assert set(lr.range.split(" or ")) == {"0 to 1", "0 to 2"}


@pytest.mark.parametrize(
    ("family", "space", "name", "when"),
    [
        ("spacing_mdn", "cpu-quickstart", "prime_window", "prime_lines = 30 or 100 or 300"),
        ("spacing_mdn", "e55", "aux_weight", "aux_mode = mean or diagonal"),
        ("shared_moe", "routing", "aux_end_share", "aux_decay_end_frac = 0.15 or 0.3 or 0.5"),
        ("shared_moe", "routing-wide", "sigmoid_gate", ""),
    ],
)
def test_conditions_of_spaces_that_ship(family: str, space: str, name: str, when: str) -> None:
    (found,) = (one for one in parameters(get_space(family, space)) if one.name == name)
    assert found.when == when
