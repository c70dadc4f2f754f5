"""Config classes made from values: what they hold comes back equal from JSON, and the task gets the kind it knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from trainables.given.config import config_class
from trainables.spelling import equal, read_config, spelt


@dataclass(frozen=True)
class Adam:
    lr: float = 0.1
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    widths: list[int] = field(default_factory=lambda: [8, 8])

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr = {self.lr}: above 0")


class Sgd(BaseModel):
    lr: float = 0.1
    name: str = "sgd"


BASES: list[Any] = [
    {"lr": 0.1, "clip": None, "data": "mnist", "widths": [8, 8], "betas": (0.9, 1), "on": True, "more": {"a": 1}},
    Adam(lr=0.5),
    Sgd(lr=0.5),
]


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
def test_a_task_gets_what_was_given_also_after_it_was_written_down(base: Any) -> None:
    config = config_class("Config", __name__, base)()
    again = read_config(type(config), spelt(config))
    assert equal(config, again)
    assert config.digest() == again.digest()
    assert again.handed() == base
    assert type(again.handed()) is type(base)


def test_what_is_drawn_widens_a_field_and_adds_names() -> None:
    kind = config_class("Config", __name__, {"lr": 1, "opt": "adam"}, {"lr": [0.5], "opt": [None], "momentum": [0.9]})
    assert kind(lr=0.25, opt=None, momentum=0.5).handed() == {"lr": 0.25, "opt": None, "momentum": 0.5}
    assert kind().handed() == {"lr": 1, "opt": "adam"}  # momentum was not drawn
    with pytest.raises(ValidationError, match="lr"):
        kind(lr="fast")
    with pytest.raises(ValidationError, match="rate"):
        kind(rate=0.1)


def test_a_declared_type_counts_for_more_than_a_value() -> None:
    kind = config_class("Config", __name__, Adam())
    assert kind(clip=0.5).handed() == Adam(clip=0.5)
    with pytest.raises(ValidationError, match=r"lr = -1\.0: above 0"):
        kind(lr=-1.0)


def test_a_task_may_change_what_it_gets() -> None:
    config = config_class("Config", __name__, {"widths": [1]})()
    config.handed()["widths"].append(2)
    assert config.handed() == {"widths": [1]}


@pytest.mark.parametrize(
    ("base", "drawn", "words"),
    [
        ({"lr-max": 1}, {}, "'lr-max': a field's name"),
        ({"_lr": 1}, {}, "'_lr': a field's name"),
        ({1: 1}, {}, "1: a field's name"),
        ({"digest": 1}, {}, "digest: is a name of"),
        (3, {}, "is a int: allowed are a dict"),
        (Adam, {}, "is a type: allowed are a dict"),
        (None, {}, "is a NoneType: allowed are a dict"),
        (Adam(), {"rate": [0.1]}, "rate: is drawn, and Adam has no such field"),
    ],
)
def test_what_cannot_be_a_config_is_named(base: Any, drawn: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config_class("Config", __name__, base, drawn)
