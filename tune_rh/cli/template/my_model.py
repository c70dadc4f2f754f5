"""A model to start from: which of two spirals does a point lie on? Put your own model and data in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.api import Space, Trial
from trainables.api import Family, Metric, Progress, Split
from trainables.config import FrozenConfig
from trainables.training.seeding import RngStream


class Config(FrozenConfig):
    """Whatever may be searched, and whatever a run should be recorded with."""

    data: str = "spirals"
    lr: float = 0.003
    width: int = 32
    dropout: float = 0.0
    batch_size: int = 64


def suggest(trial: Trial) -> dict[str, Any]:
    """One config of the search space: the fields that differ from the preset ``base``."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "width": trial.suggest_categorical("width", (16, 32, 64)),
        "dropout": trial.suggest_float("dropout", 0.0, 0.3),
    }


def build(config: Config) -> nn.Module:
    """The untrained model."""
    return nn.Sequential(
        nn.Linear(2, config.width),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.width, config.width),
        nn.ReLU(),
        nn.Linear(config.width, 2),
    )


def points(split: str, number: int) -> tuple[Tensor, Tensor]:
    """Points of two noisy spirals, and which of them each lies on; the same at every call."""
    draws = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
    spiral = torch.randint(2, (number,), generator=draws)
    turn = 6 * torch.rand(number, generator=draws).sqrt()
    angle = turn + torch.pi * spiral
    place = turn[:, None] / 6 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return place + 0.05 * torch.randn(number, 2, generator=draws), spiral


class Task:
    """One model in training. All that `step` depends on is in its state, so that a killed run goes on bit for bit."""

    def __init__(self, config: Config, *, seed: int, device: str, data_dir: Path) -> None:
        self._device, self._batch_size = torch.device(device), config.batch_size
        self._random = RngStream(seed, "training", self._device)  # torch's global generator, for this task alone
        with self._random:
            self.model = build(config).to(self._device)
        self._optimiser = torch.optim.AdamW(self.model.parameters(), lr=config.lr)
        self._inputs, self._labels = points("train", 1000)

    def step(self) -> Mapping[str, float]:
        """Take one optimiser step."""
        self.model.train()
        with self._random:
            batch = torch.randint(len(self._labels), (self._batch_size,))
            loss = self._loss(self._inputs[batch], self._labels[batch])
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        return {"train_loss": loss.item()}

    @torch.no_grad()
    def evaluate(self, split: Split = "val") -> Mapping[str, float]:
        """The metrics of a split: the same weights give the same numbers, and training is left untouched."""
        self.model.eval()
        inputs, labels = points(split, 500)
        right = self.model(inputs.to(self._device)).argmax(dim=1).cpu() == labels
        return {f"{split}_loss": self._loss(inputs, labels).item(), f"{split}_accuracy": right.float().mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """Model, optimiser and random numbers; where data is read in order, the position belongs here too."""
        optimiser, random = self._optimiser.state_dict(), self._random.state_dict()
        return {"model": self.model.state_dict(), "optimiser": optimiser, "random": random}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._random.load_state_dict(state["random"])

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.model(inputs.to(self._device)), labels.to(self._device))


class Data:
    """The data sets by name. This one is computed as it is used; a file is checked by its digest."""

    names = ("spirals",)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make the data set unless it is there; returns its path."""
        return data_dir

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the data set: a run goes on only with the data that it began with."""
        return hashlib.sha256(name.encode()).hexdigest()


DATA = Data()
SPACES = {"first": Space(suggest, base="base", summary="learning rate, width and dropout")}
LOSS = Metric("val_loss", "min", "nats", "Mean cross-entropy on the validation split.")
FAMILY = Family(
    name="my_model",
    summary="Which of two spirals does a point lie on?",
    config="my_model:Config",
    model="my_model:build",
    task="my_model:Task",
    data="my_model:DATA",
    objective=LOSS,
    metrics=(
        LOSS,
        Metric("val_accuracy", "max", "1", "Share of points whose spiral is named."),
        Metric("train_loss", "min", "nats", "Mean cross-entropy of the batches."),
    ),
    presets={"base": {}},
    spaces="my_model:SPACES",
)
