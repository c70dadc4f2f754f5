"""A family without a model: its learning curve is a closed form with seeded noise, so that every result is known.

loss(step) = floor + span * exp(-rate * step) + noise * N(seed, step). It can fail or diverge where it is told to.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from search_spaces.api import Space, Trial, Unsatisfiable
from trainables.api import Family, Metric, Progress
from trainables.config import FrozenConfig
from trainables.errors import DataMissing


class ScriptedConfig(FrozenConfig):
    data: Literal["none", "absent"] = "none"
    floor: float = Field(default=0.5, ge=0, le=10)
    span: float = 2.0
    rate: float = 0.01
    noise: float = 0.0
    kind: Literal["plain", "bent"] = "plain"
    bend: float = 0.0
    diverge_at: int | None = None
    fail_at: int | None = None
    fail_marker: str = ""
    die_marker: str = ""
    step_s: float = 0.0


def build_model(config: ScriptedConfig) -> Any:
    import torch

    return torch.nn.Linear(1, 1, bias=False)


class ScriptedTask:
    def __init__(self, config: ScriptedConfig, *, seed: int, device: str, data_dir: Path) -> None:
        self.config = config
        self.seed = seed
        self.model = build_model(config)
        self._step = 0

    def step(self) -> dict[str, float]:
        self._step += 1
        config = self.config
        if config.step_s:
            until = time.perf_counter() + config.step_s
            while time.perf_counter() < until:
                pass
        if self._step == config.fail_at and not _mark(config.fail_marker):
            raise RuntimeError(f"scripted failure at step {self._step}")
        if self._step == config.fail_at and config.die_marker and not _mark(config.die_marker):
            os.kill(os.getpid(), signal.SIGKILL)
        self.model.weight.data.fill_(float(self._step))
        diverged = config.diverge_at is not None and self._step >= config.diverge_at
        return {"train_loss": math.nan if diverged else self._loss(), "lr": 0.1}

    def evaluate(self, split: str = "val") -> dict[str, float]:
        shift = 0.0 if split == "val" else 0.125
        return {f"{split}_loss": self._loss() + shift, **({"health": self.config.rate} if split == "val" else {})}

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "step": self._step, "seed": self.seed}

    def load_state_dict(self, state: Any) -> None:
        self.model.load_state_dict(state["model"])
        self._step, self.seed = state["step"], state["seed"]

    def _loss(self) -> float:
        config = self.config
        noise = random.Random(hash((self.seed, self._step))).gauss(0, 1)
        bent = config.bend if config.kind == "bent" else 0.0
        return config.floor + bent + config.span * math.exp(-config.rate * self._step) + config.noise * noise


def _mark(path: str) -> bool:
    """Whether the file was there; makes it, so that the next attempt passes."""
    if not path:
        return False
    there = Path(path).exists()
    Path(path).touch()
    return there


class NoData:
    names = ("none", "absent")

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        return data_dir

    def digest(self, name: str, data_dir: Path) -> str:
        if name == "absent":
            raise DataMissing(f"data set {name!r} is not in {data_dir}")
        marker = data_dir / "changed"
        return hashlib.sha256(name.encode() + (marker.read_bytes() if marker.exists() else b"")).hexdigest()


SOURCE = NoData()

FAMILY = Family(
    name="scripted",
    summary="closed-form learning curves",
    config="tests.worlds.family:ScriptedConfig",
    model="tests.worlds.family:build_model",
    task="tests.worlds.family:ScriptedTask",
    data="tests.worlds.family:SOURCE",
    objective=Metric("val_loss", "min", "nats", "closed form"),
    metrics=(
        Metric("val_loss", "min", "nats", "closed form"),
        Metric("test_loss", "min", "nats", "val + 1/8"),
        Metric("train_loss", "min", "nats", "the same"),
        Metric("health", "max", "", "the rate"),
        Metric("pulse", "max", "", "reported in simulations only"),
        Metric("absent", "min", "", "never reported"),
        Metric("lr", "min", "", "constant"),
    ),
    presets={
        "control": {"floor": 1.0},
        "good": {"floor": 0.25, "rate": 0.02},
        "same-as-control": {"floor": 1.0},
        "diverging": {"diverge_at": 5},
        "failing": {"fail_at": 5},
    },
)

JUDGED = replace(FAMILY, diagnostics="analysis.spacing_mdn:DIAGNOSTICS")
"""As far as names and titles go: its models have no slots that these could look at."""


def suggest(trial: Trial) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ("plain", "bent"))
    config = {
        "kind": kind,
        "floor": trial.suggest_float("floor", 0.1, 2.0),
        "rate": trial.suggest_float("rate", 1e-3, 1e-1, log=True),
    }
    if kind == "bent":
        config["bend"] = trial.suggest_float("bend", 0.0, 0.5)
    return config


def suggest_small(trial: Trial) -> dict[str, Any]:
    return {"kind": trial.suggest_categorical("kind", ("plain", "bent"))}


def suggest_nothing(trial: Trial) -> dict[str, Any]:
    return {}


def suggest_invalid(trial: Trial) -> dict[str, Any]:
    return {"floor": trial.suggest_float("floor", 20.0, 30.0)}


def suggest_rarely_invalid(trial: Trial) -> dict[str, Any]:
    kind = trial.suggest_categorical("kind", ("plain", "bent"))
    size = trial.suggest_int("size", 1, 8)
    if size == 3:
        raise Unsatisfiable("span", 3, "what divides")
    if size == 5:
        return {"kind": {"a": kind}["b"]}
    return {"kind": kind, "floor": 20.0 if size == 7 else trial.suggest_float("floor", 0.1, 2.0)}


SPACE = Space(suggest=suggest, base="control")
SMALL = Space(suggest=suggest_small, base="control")
EMPTY = Space(suggest=suggest_nothing, base="control")
INVALID = Space(suggest=suggest_invalid, base="control")
RARELY_INVALID = Space(suggest=suggest_rarely_invalid, base="control", auxiliary={"size": lambda config: 1})
