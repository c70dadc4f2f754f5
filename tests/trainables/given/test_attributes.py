"""Tasks whose state is what their attributes hold: all of it comes back, and what cannot is refused by name."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel

import tune_rh
from trainables.worker.savable import unsavable


@dataclass
class Average:
    """A running mean."""

    rate: float
    values: list[torch.Tensor] = field(default_factory=list)


class Counts(BaseModel):
    """What a pydantic model holds."""

    seen: int = 0


class Everything(tune_rh.Task):
    """An attribute of each kind, each of which every step changes."""

    constants = ("data",)

    def __init__(self, config: Any = None, *, seed: int, device: str = "cpu", data_dir: Path = Path()) -> None:
        self.data = torch.utils.data.TensorDataset(torch.arange(100.0))
        self.place, self.loss, self.device = data_dir, torch.nn.functional.mse_loss, torch.device(device)
        self.drawn = torch.Generator().manual_seed(seed)
        self.philox = np.random.Generator(np.random.Philox(seed))
        self.twister = np.random.Generator(np.random.MT19937(seed))
        self.python = random.Random(seed)
        self.model = torch.nn.Linear(3, 1)
        self.heads = [torch.nn.Linear(1, 1), {"b": torch.nn.Linear(1, 1)}]
        for module in (self.model, self.heads[0], self.heads[1]["b"]):  # type: ignore[index]
            for tensor in module.parameters():  # type: ignore[union-attr]
                torch.nn.init.normal_(tensor, generator=self.drawn)
        self.free = torch.zeros(2, requires_grad=True)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.optimiser = torch.optim.AdamW([*self.model.parameters(), self.free, self.scale], lr=0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimiser, 2)
        self.array, self.single = np.zeros(3), np.float64(0)
        self.average, self.counts = Average(0.9), Counts()
        self.position, self.best, self.history = 0, None, []  # type: ignore[var-annotated]
        self.frozen: tuple[Any, ...] = ()

    def step(self) -> dict[str, float]:
        """One step."""
        x = torch.randn(4, 3, generator=self.drawn) + self.philox.random() + self.twister.random()
        made = self.heads[1]["b"](self.heads[0](self.model(x)))  # type: ignore[operator, index]
        loss = (made * self.scale + self.free.sum() + self.python.random()).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.position += 1
        self.array, self.single = self.array + loss.item(), np.float64(self.single + loss.item())
        self.average.values.append(self.free.detach().clone())
        self.counts.seen += 4
        self.best = loss.detach() if self.best is None else torch.minimum(self.best, loss.detach())
        self.history.append((self.position, {"loss": loss.item()}))
        self.frozen = (*self.frozen, self.single)
        return {"train_loss": loss.item(), "sum": float(self.array.sum() + self.single + self.counts.seen)}


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint gives back."""
    assert list(unsavable(state)) == []
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    back: dict[str, Any] = torch.load(file, weights_only=True)
    return back


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_a_task_of_another_seed_goes_on_with_all_of_it(num_steps: int) -> None:
    task, other = Everything(seed=1), Everything(seed=2)
    for _ in range(num_steps):
        task.step()
    for _ in range(2):
        other.step()
    state = through_a_file(task.state_dict())
    assert "data" not in state
    other.load_state_dict(state)
    assert repr(through_a_file(other.state_dict())) == repr(state)
    assert [other.step() for _ in range(3)] == [task.step() for _ in range(3)]
    assert other.history == task.history
    assert other.frozen == task.frozen


def test_what_was_saved_does_not_change_with_the_task() -> None:
    task = Everything(seed=1)
    task.step()
    state = task.state_dict()
    before = repr({name: state[name] for name in ("free", "history", "average", "best", "position", "array")})
    task.step()
    assert repr({name: state[name] for name in ("free", "history", "average", "best", "position", "array")}) == before


class Held(tune_rh.Task):
    """Holds one thing."""

    def __init__(self, made: Callable[[], Any]) -> None:
        self.held = made()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: torch.utils.data.TensorDataset(torch.zeros(2)), r"Held\.held: .* a TensorDataset has no state_dict"),
        (lambda: iter([1]), r"Held\.held: .* a list_iterator has no state_dict"),
        (lambda: [0, {"a": {1, 2}}], r"Held\.held\[1\]\['a'\]: .* a set has no state_dict.*constants = \('held',\)"),
    ],
)
def test_what_cannot_be_saved_is_refused_by_name(made: Callable[[], Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Held(made).state_dict()


@pytest.mark.parametrize("constants", ["held", ("data",), ["held", "hold"]])
def test_constants_that_name_no_attributes_are_refused(constants: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Held, "constants", constants)
    with pytest.raises(TypeError, match=r"Held\.constants = .*: allowed are a list or a tuple of names.* of held"):
        Held(lambda: 1).state_dict()


def test_what_a_new_task_does_not_make_is_refused_by_name() -> None:
    late, new = Held(lambda: None), Held(lambda: None)
    late.held = [torch.optim.SGD([torch.zeros(1)], lr=1.0)]
    with pytest.raises(TypeError, match=r"Held\.held\[0\]: was a SGD when it was saved, and __init__ makes it a None"):
        new.load_state_dict(late.state_dict())
