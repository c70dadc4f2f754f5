"""A family whose config has a field of every kind that JSON or TOML cannot hold as it is, and strategies to draw it."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st

from search_spaces.api import Space, Trial
from tests.worlds.family import FAMILY as SCRIPTED
from tests.worlds.family import ScriptedConfig, ScriptedTask
from tests.worlds.family import build_model as build_scripted
from trainables.config import FrozenConfig


class Act(StrEnum):
    RELU = "relu"
    NONE = "@none"


class Width(Enum):
    NARROW = 1
    WIDE = 2


class Block(FrozenConfig):
    widths: tuple[int, ...] = (4,)
    clip: float | None = None
    kinds: frozenset[Act] = frozenset()


class TypedConfig(FrozenConfig):
    data: Literal["none", "absent"] = "none"
    floor: float = 0.5
    rate: float = 0.01
    clip: float | None = 1.0
    schedule: str | None = "cos"
    betas: tuple[float, float] = (0.9, 0.99)
    act: Act = Act.RELU
    width: Width = Width.WIDE
    tags: frozenset[str] = frozenset()
    mode: Literal["none", "fast", 3] | None = "fast"
    block: Block = Block()
    blocks: tuple[Block, ...] = ()
    either: int | str = 1
    places: dict[int, float] = {}
    folder: Path = Path(".")
    options: dict[str, Any] = {}

    def scripted(self) -> ScriptedConfig:
        return ScriptedConfig(floor=self.floor, rate=self.rate)


class TypedTask(ScriptedTask):
    def __init__(self, config: TypedConfig, **facts: Any) -> None:
        super().__init__(config.scripted(), **facts)


def build_model(config: TypedConfig) -> Any:
    return build_scripted(config.scripted())


FAMILY = replace(
    SCRIPTED,
    name="typed",
    config="tests.worlds.typed:TypedConfig",
    model="tests.worlds.typed:build_model",
    task="tests.worlds.typed:TypedTask",
    metrics=tuple(metric for metric in SCRIPTED.metrics if metric.name not in ("absent", "pulse")),
    presets={
        "control": {},
        "unclipped": {"clip": float("inf"), "schedule": None, "tags": frozenset({"b", "a", "c"})},
        "deep": {"block": Block(widths=(8, 8)), "blocks": (Block(clip=2.0),), "act": Act.NONE, "width": Width.NARROW},
        "loose": {"options": {"clip": None, "k": 2, "most": float("inf"), "name": "@none"}},
    },
)


def suggest(trial: Trial) -> dict[str, Any]:
    return {
        "floor": trial.suggest_float("floor", 0.1, 2.0),
        "clip": trial.suggest_categorical("clip", [None, 0.5, float("inf")]),
        "schedule": trial.suggest_categorical("schedule", [None, "cos", "@none"]),
    }


SPACE = Space(suggest=suggest, base="deep")

_text = st.one_of(st.text(max_size=6), st.sampled_from(["@none", "@inf", "@text:", "@text:@nan", "none", "null", "@"]))
_numbers = st.one_of(st.integers(), st.floats())
_plain = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_text, inner, max_size=3)),
    max_leaves=6,
)
_floats_or_none = st.one_of(st.none(), st.floats())
_acts = st.sampled_from(Act)
_blocks = st.builds(
    Block, widths=st.lists(st.integers(), max_size=3).map(tuple), clip=_floats_or_none, kinds=st.frozensets(_acts)
)

configs: st.SearchStrategy[TypedConfig] = st.builds(
    TypedConfig,
    floor=st.floats(),
    clip=_floats_or_none,
    schedule=st.one_of(st.none(), _text),
    betas=st.tuples(st.floats(), st.floats()),
    act=_acts,
    width=st.sampled_from(Width),
    tags=st.frozensets(_text, max_size=4),
    mode=st.sampled_from(["none", "fast", 3, None]),
    block=_blocks,
    blocks=st.lists(_blocks, max_size=2).map(tuple),
    either=st.one_of(st.integers(), _text),
    places=st.dictionaries(st.integers(), st.floats(), max_size=2),
    folder=_text.map(lambda text: Path("/", text.replace("\0", ""))),
    options=st.dictionaries(_text, _plain, max_size=3),
)
