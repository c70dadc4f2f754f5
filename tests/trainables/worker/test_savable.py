"""What of a task's state a checkpoint gives back, and what it names instead of losing it."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.errors import CheckpointError
from trainables.worker import checkpoint
from trainables.worker.savable import unsavable


class Phase(Enum):
    WARM = 1


@dataclass
class Scale:
    value: float = 1.0


WEIGHTS = {"weight": torch.ones(2)}


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 10**30, 0.5, "text", b"bytes", 1j, [1, [2, {"a": None}]], (1, 2), {1: "one", (1, 2): 3},
        OrderedDict(a=1), {1, 2}, torch.ones(2), torch.Generator().get_state(), torch.float16, torch.Size([2]),
        random.Random(1).getstate(), torch.optim.AdamW([torch.ones(1, requires_grad=True)]).state_dict(),
        torch.device("cpu"), bytearray(b"x"), Counter("aab"),
    ],
)  # fmt: skip
def test_what_comes_back_from_a_checkpoint_is_let_through(value: Any, tmp_path: Path) -> None:
    state = {"model": WEIGHTS, "extra": {"inside": value}}
    assert list(unsavable(state)) == []
    saved, _ = checkpoint.load(checkpoint.save(tmp_path, 1, state, {}))
    assert str(saved["extra"]["inside"]) == str(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (deque([1], maxlen=3), "state['extra']['inside'] is collections.deque"),
        (defaultdict(list), "state['extra']['inside'] is collections.defaultdict"),
        (np.random.RandomState(1).get_state(), "state['extra']['inside'][1] is numpy.ndarray"),
        (np.random.default_rng(1), "state['extra']['inside'] is numpy.random._generator.Generator"),
        ([0.5, np.float64(0.5)], "state['extra']['inside'][1] is numpy.float64"),
        ({"n": np.int64(1)}, "state['extra']['inside']['n'] is numpy.int64"),
        (lambda step: 0.9**step, "state['extra']['inside'] is function"),
        (random.Random(1), "state['extra']['inside'] is random.Random"),
        (Phase.WARM, f"state['extra']['inside'] is {__name__}.Phase"),
        (Scale(), f"state['extra']['inside'] is {__name__}.Scale"),
        (Path("x"), "state['extra']['inside'] is pathlib.PosixPath"),
        ({Phase.WARM: 1}, f"state['extra']['inside'], key <Phase.WARM: 1> is {__name__}.Phase"),
        (torch.nn.Linear(1, 1), "state['extra']['inside'] is torch.nn.modules.linear.Linear"),
        (open, "state['extra']['inside'] is builtin_function_or_method"),
        (iter([1]), "state['extra']['inside'] is list_iterator"),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_named_with_key_and_type(value: Any, said: str, tmp_path: Path) -> None:
    state = {"model": WEIGHTS, "fine": 1, "extra": {"inside": value}}
    (line,) = unsavable(state)
    assert line.startswith(said)
    with pytest.raises(CheckpointError, match="cannot be written, for it could not be read: "):
        checkpoint.save(tmp_path / "checkpoints", 1, state, {})
    assert not (tmp_path / "checkpoints").exists()


def test_everything_that_would_be_lost_is_named_at_once() -> None:
    lines = list(unsavable({"model": {"w": 1.0}, "a": deque(), 3: 1, "b": [Phase.WARM]}))
    assert [line.partition(" is ")[0].partition(":")[0] for line in lines] == [
        "state['model']['w']", "state['a']", "state[3]", "state['b'][0]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([1], "state_dict() returns list"),
        ({"weights": 1}, "state_dict() has no key 'model', the weights by name; its keys: 'weights'"),
        ({"model": torch.nn.Linear(1, 1)}, "state['model'] is torch.nn.modules.linear.Linear"),
    ],
)
def test_a_state_of_another_form_is_refused(state: Any, said: str) -> None:
    assert next(unsavable(state)).startswith(said)


def test_a_state_that_holds_itself_is_named() -> None:
    ring: dict[str, Any] = {"list": []}
    ring["list"].append(ring)
    twice = {"once": [1.0]}
    state = {"model": {}, "a": twice, "b": [twice, twice], "ring": ring}
    assert list(unsavable(state)) == ["state['ring']['list'][0] is a part of itself: a checkpoint holds what ends"]


def test_a_long_list_of_what_does_not_come_back_is_cut() -> None:
    lines = list(unsavable({"model": {}, "buffer": [deque() for _ in range(10_000)]}))
    assert [line.split(" is ")[0] for line in lines[:5]] == [f"state['buffer'][{i}]" for i in range(5)]
    assert lines[5:] == ["state has more that a checkpoint cannot give back"]
