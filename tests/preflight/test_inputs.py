"""What configs and spaces hand in: what is lost on its way is named, and what a space asks for in two ways."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from enum import Enum
from functools import partial
from typing import Any

import pytest
from pydantic import ConfigDict, Field, field_serializer, model_validator

from search_spaces.api import Space, Trial, Unsatisfiable
from tests.worlds.typed import FAMILY as TYPED
from trainables.config import FrozenConfig
from trainables.registry import build_config
from trainables.spelling import read_config
from tune_rh.preflight.inputs import NUM_DRAWS, Drawn, check_config, check_space


class Kind(Enum):
    A = "a"


class Config(FrozenConfig):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    lr: float = 0.1
    size: int = 1
    act: str | None = "relu"
    options: dict[str, Any] = {}
    anything: Any = None
    hidden: int = Field(default=1, exclude=True)

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.size == 77:
            raise ValueError("size = 77: does not divide the width")
        return self


class Rounded(Config):
    @field_serializer("lr")
    def _round(self, lr: float) -> float:
        return round(lr, 2)


def lines(config: FrozenConfig) -> list[str]:
    return [str(finding) for finding in check_config("preset 'a'", config)]


@pytest.mark.parametrize("preset", TYPED.presets)
def test_a_config_of_declared_types_comes_back(preset: str) -> None:
    assert list(check_config("preset", build_config(TYPED, preset=preset))) == []


def test_none_infinity_and_nan_come_back_from_wherever_they_are() -> None:
    assert lines(Config(act=None, lr=math.nan, options={"clip": None, "most": [math.inf, {"least": -math.inf}]})) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"options": {"betas": (0.9, 0.99)}}, "T10 preset 'a', options: {'betas': (0.9, 0.99)} (dict) comes back from "
                                              "JSON as {'betas': [0.9, 0.99]} (dict): declare the field with its type"),
        ({"anything": {1, 2}}, "T10 preset 'a', anything: {1, 2} (set) comes back from JSON as [1, 2] (list)"),
        ({"anything": Kind.A}, "T10 preset 'a', anything: <Kind.A: 'a'> (Kind) comes back from JSON as 'a' (str)"),
        ({"anything": math.sqrt}, "T10 preset 'a', anything: <built-in function sqrt> (builtin_function_or_method)"),
        ({"anything": object}, "T10 preset 'a', anything: <class 'object'> (type) cannot be written as JSON ("),
        ({"act": "\udcff"}, "T10 preset 'a', act: '\\udcff' (str) cannot be written as JSON ("),
        ({"hidden": 2}, "T10 preset 'a', hidden: 2 (int) comes back from JSON as 1 (int)"),
    ],
)  # fmt: skip
def test_what_does_not_come_back_is_named_by_its_field(fields: dict[str, Any], said: str) -> None:
    (line,) = lines(Config(**fields))
    assert line.startswith(said), line


def test_a_serializer_that_loses_digits_is_found() -> None:
    (line,) = lines(Rounded(lr=0.123))
    assert line.startswith("T10 preset 'a', lr: 0.123 (float) comes back from JSON as 0.12 (float)")


def drawn(suggest: Any) -> Drawn:
    return check_space("space 'x'", Space(suggest, base=""), partial(read_config, Config, {}))


def found(suggest: Any) -> list[str]:
    return [str(finding) for finding in drawn(suggest).findings]


def test_a_sound_space() -> None:
    def suggest(trial: Trial) -> dict[str, Any]:
        kind = trial.suggest_categorical("act", ["relu", None])
        fields = {"lr": trial.suggest_float("lr", 1e-3, 1.0, log=True), "act": kind}
        return fields if kind is None else {**fields, "size": trial.suggest_int("size", 2, 8, step=2)}

    got = drawn(suggest)
    assert (got.findings, len(got.configs), got.error) == ([], NUM_DRAWS, None)
    assert got.asked == got.fields == {"act", "lr", "size"}


def by_answer(trial: Trial, one: Any, other: Any) -> Any:
    return one if trial.suggest_categorical("act", ["a", "b"]) == "a" else other


@pytest.mark.parametrize(
    ("suggest", "said"),
    [
        (lambda t: {"size": t.suggest_categorical("size", by_answer(t, [1, 2], [3, 4]))}, "[1, 2]"),
        (lambda t: {"size": t.suggest_int("size", 1, by_answer(t, 4, 8))}, "1 to 4, whole"),
        (lambda t: {"lr": t.suggest_float("lr", 0.1, 1.0, log=by_answer(t, True, False))}, "0.1 to 1.0 in the log"),
        (lambda t: {"lr": t.suggest_float("lr", 0.0, 1.0, step=by_answer(t, None, 0.5))}, "0.0 to 1.0 in steps of 0.5"),
        (lambda t: {"lr": by_answer(t, t.suggest_float, t.suggest_int)("lr", 1, 2)}, "1 to 2, whole"),
    ],
)  # fmt: skip
def test_a_name_is_asked_for_in_one_way(suggest: Any, said: str) -> None:
    (line,) = found(suggest)
    assert line.startswith("T11 space 'x': asks for ")
    assert said in line
    assert line.endswith("a sampler knows a name by one of them; use two names")


@pytest.mark.parametrize(
    ("suggest", "said"),
    [
        (lambda t: {"size": t.suggest_categorical("size", [(4,), (8, 8)])}, "(4,) (tuple) is no choice: allowed are"),
        (lambda t: {"act": t.suggest_categorical("act", ["a", ["b"]])}, "['b'] (list) is no choice"),
        (lambda t: {"act": t.suggest_categorical("act", [Kind.A])}, "<Kind.A: 'a'> (Kind) is no choice"),
        (lambda t: {"lr": t.suggest_categorical("lr", [0.1, math.nan])}, "nan is no choice"),
        (lambda t: {"lr": t.suggest_categorical("lr", [])}, "there is nothing to choose from"),
        (lambda t: {"size": t.suggest_categorical("size", [1, True])}, "choices that are equal have one type"),
        (lambda t: {"lr": t.suggest_float("lr", 0.1, math.inf)}, "bounds are finite"),
        (lambda t: {"lr": t.suggest_float("lr", 1.0, 0.1)}, "the first bound is the lower one"),
        (lambda t: {"lr": t.suggest_float("lr", 0.0, 1.0, log=True)}, "a logarithm begins above 0"),
        (lambda t: {"lr": t.suggest_float("lr", 0.1, 1.0, step=0.1, log=True)}, "in the logarithm has no steps"),
        (lambda t: {"lr": t.suggest_float("lr", 0.1, 1.0, step=0.0)}, "a step is above 0"),
        (lambda t: {"size": t.suggest_int("size", 1, 4.5)}, "bounds and step of a whole number are whole"),
        (lambda t: {"size": t.suggest_int("size", 0, 8, log=True)}, "a logarithm begins above 0"),
        (lambda t: {"size": t.suggest_int("size", False, True)}, "bounds and step of a whole number are whole"),
        (lambda t: {"size": t.suggest_int("size", 1, 4, step=-1)}, "a step is above 0"),
        (lambda t: {"lr": t.suggest_float("lr", "0.1", 1.0)}, "0.1 to 1.0: bounds are numbers"),
        (lambda t: {"lr": t.suggest_float("lr", None, 1.0)}, "None to 1.0: bounds are numbers"),
        (lambda t: {"lr": t.suggest_float(None, 0.1, 1.0)}, "a name is text, and not empty"),
        (lambda t: {"lr": t.suggest_float("", 0.1, 1.0)}, "a name is text, and not empty"),
        (lambda t: {"act": t.suggest_categorical("act", "relu")}, "one of 'relu': choices are a list or a tuple"),
        (lambda t: {"act": t.suggest_categorical("act", {"a", "b"})}, "choices are a list or a tuple"),
        (lambda t: {"act": t.suggest_categorical("act", {"a": 1})}, "choices are a list or a tuple"),
        (lambda t: {"act": t.suggest_categorical("act", (c for c in "ab"))}, "choices are a list or a tuple"),
        (lambda t: {"act": t.suggest_categorical("act", None)}, "one of None: choices are a list or a tuple"),
    ],
)  # fmt: skip
def test_what_no_sampler_can_answer_is_refused_by_name(suggest: Any, said: str) -> None:
    (line,) = found(suggest)
    assert line.startswith("T11 space 'x': asks for ")
    assert said in line


def test_infinity_is_a_choice() -> None:
    assert found(lambda t: {"lr": t.suggest_categorical("lr", [0.1, math.inf])}) == []


def rarely(trial: Trial, most: int, otherwise: Any) -> dict[str, Any]:
    size = trial.suggest_int("size", 1, 100)
    return {"size": size} if size > most else otherwise(size)


def unsatisfiable(size: int) -> Mapping[str, Any]:
    raise Unsatisfiable("size", 3, "what divides")


@pytest.mark.parametrize(
    ("otherwise", "why"),
    [
        (lambda size: {"size": 77}, "size = 77: does not divide the width"),
        (lambda size: {"size": "many"}, "size = 'many': Input should be a valid integer"),
        (unsatisfiable, "size = 3: the space allows what divides"),
        (lambda size: {}["x"], "KeyError: 'x' ("),
        (lambda size: [size], "TypeError: suggest returns list: allowed is a dict of config fields"),
    ],
)
def test_some_draws_that_are_no_config_are_said_and_many_refused(otherwise: Any, why: str) -> None:
    few = drawn(partial(rarely, most=20, otherwise=otherwise))
    (finding,) = few.findings
    assert (finding.id, finding.part, finding.level) == ("T12", "space 'x'", "warn")
    num = NUM_DRAWS - len(few.configs)
    assert finding.message.startswith(f"{num} of {NUM_DRAWS} draws are no valid config: {why}")
    (finding,) = drawn(partial(rarely, most=80, otherwise=otherwise)).findings
    assert finding.level == "refuse"
    none = drawn(partial(rarely, most=100, otherwise=otherwise))
    assert not none.configs
    assert none.error is not None
    assert none.findings[0].message.startswith(why)


def test_a_space_that_ends_the_process_is_a_finding() -> None:
    (line,) = found(lambda t: sys.exit("no licence"))
    assert line.startswith("T12 space 'x': SystemExit: no licence (")


def test_what_is_said_of_a_thousand_choices_is_short() -> None:
    many = [f"c{i}" for i in range(1000)]
    lines = found(lambda t: {"act": t.suggest_categorical("act", many[t.suggest_int("size", 0, 9) :])})
    assert [line[:30] for line in lines] == ["T11 space 'x': asks for act as"]
    assert len(lines[0]) < 500
