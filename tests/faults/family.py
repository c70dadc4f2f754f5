"""A small family that really trains: AdamW on noisy data whose generator is part of the state.

A mistake of a resume (a step too many, a stale optimiser, a lost generator) changes every later digit of a curve.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from search_spaces.api import Space, Trial
from trainables.api import Family, Metric, Progress
from trainables.config import FrozenConfig, canonical_digest

HERE = "tests.faults.family"


class Config(FrozenConfig):
    data: str = "none"
    lr: float = Field(default=0.02, gt=0, le=1)
    width: int = Field(default=4, ge=1, le=64)


def build_model(config: Config) -> torch.nn.Module:
    width = config.width
    return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))


class Task:
    def __init__(self, config: Config, *, seed: int, device: str, data_dir: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = build_model(config)
        self._optimiser = torch.optim.AdamW(self.model.parameters(), lr=config.lr)
        self._generator = torch.Generator().manual_seed(seed + 1)

    def step(self) -> dict[str, float]:
        loss = self._loss(self._generator, 16)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return {"train_loss": float(loss.detach())}

    def evaluate(self, split: str = "val") -> dict[str, float]:
        with torch.no_grad():
            return {f"{split}_loss": float(self._loss(torch.Generator().manual_seed(ord(split[0])), 64))}

    def state_dict(self) -> dict[str, Any]:
        optimiser, generator = self._optimiser.state_dict(), self._generator.get_state()
        return {"model": self.model.state_dict(), "optimiser": optimiser, "generator": generator}

    def load_state_dict(self, state: Any) -> None:
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])

    def _loss(self, generator: torch.Generator, size: int) -> torch.Tensor:
        x = torch.randn(size, 4, generator=generator)
        y = x.sum(1, keepdim=True).sin() + 0.1 * torch.randn(size, 1, generator=generator)
        return torch.nn.functional.mse_loss(self.model(x), y)


class NoData:
    names = ("none",)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        return data_dir

    def digest(self, name: str, data_dir: Path) -> str:
        return canonical_digest(name)


def suggest(trial: Trial) -> dict[str, Any]:
    lr = trial.suggest_float("lr", 1e-3, 1e-1, log=True)
    return {"lr": lr, "width": trial.suggest_categorical("width", (2, 4, 8))}


SOURCE = NoData()
SPACE = Space(suggest=suggest, base="control")
LOSS = Metric("val_loss", "min", "mse", "on a fixed batch")
FAMILY = Family(
    name="small",
    summary="small models that really train",
    config=f"{HERE}:Config",
    model=f"{HERE}:build_model",
    task=f"{HERE}:Task",
    data=f"{HERE}:SOURCE",
    objective=LOSS,
    metrics=(
        LOSS,
        Metric("test_loss", "min", "mse", "on another"),
        Metric("train_loss", "min", "mse", "of the step"),
    ),
    presets={"control": {}, "wide": {"width": 16}},
)
