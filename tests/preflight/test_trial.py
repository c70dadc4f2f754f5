"""The trial round trip: one planted fault at a time is found in the part that has it, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tests.worlds.family import FAMILY as SCRIPTED
from trainables.api import Family, Finding, Metric, Progress
from trainables.config import FrozenConfig
from trainables.errors import DataCorrupt
from trainables.registry import get_family
from tune_rh.preflight.trial import Trial, try_task

HERE = __name__


class Config(FrozenConfig):
    data: str = "none"
    width: int = 3


def build(config: Config) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, config.width), torch.nn.BatchNorm1d(config.width))


def build_wider(config: Config) -> torch.nn.Module:
    return build(config.model_copy(update={"width": 4}))


class Task:
    """Sound; each fault is a subclass."""

    built: ClassVar[int] = 0

    def __init__(self, config: Config, *, seed: int, device: str, data_dir: Path) -> None:
        type(self).built += 1
        self.rng = torch.Generator().manual_seed(seed)
        self.model = build(config)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.normal_(generator=self.rng)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.count = 0

    def draw(self) -> torch.Tensor:
        return torch.randn(8, 2, generator=self.rng)

    def step(self) -> Mapping[str, Any]:
        self.count += 1
        self.model.train()
        loss = self.model(self.draw()).square().mean() + self.model[0].weight.sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"train_loss": loss.item(), "tokens": 8.0 * self.count}

    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        self.model.eval()
        with torch.no_grad():
            x = torch.linspace(-1.0, 1.0, 8).reshape(4, 2) + (split == "test")
            return {f"{split}_loss": self.model(x).square().mean().item()}

    def state_dict(self) -> dict[str, Any]:
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**states, "rng": self.rng.get_state(), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"])
        self.count = state["count"]


class CannotBeMade(Task):
    def __init__(self, config: Config, **facts: Any) -> None:
        raise ValueError(f"width = {config.width}\nis odd")


class DataIsDamaged(Task):
    def __init__(self, config: Config, **facts: Any) -> None:
        raise DataCorrupt("set 'none': its digest differs")


class StepFails(Task):
    def step(self) -> Mapping[str, Any]:
        raise RuntimeError("shapes")


class SecondStepFails(Task):
    def step(self) -> Mapping[str, Any]:
        return {"train_loss": [1.0][self.count]} if super().step() else {}


class NoTrainLoss(Task):
    def step(self) -> Mapping[str, Any]:
        return {"loss": super().step()["train_loss"], "tokens": float(self.count)}


class NoCount(Task):
    def step(self) -> Mapping[str, Any]:
        return {"train_loss": super().step()["train_loss"]}


class NotFinite(Task):
    def step(self) -> Mapping[str, Any]:
        return {**super().step(), "train_loss": float("nan")}


class TrainsInEvaluation(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        self.model.train()
        self.model(self.draw())
        return super().evaluate(split)


class EvaluatesAtRandom(Task):
    noise: ClassVar[random.Random] = random.Random(1)

    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {name: value + self.noise.random() for name, value in super().evaluate(split).items()}


class EvaluationFailsOnTest(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return super().evaluate({"val": "val"}[split])


class ReportsNone(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {**super().evaluate(split), f"{split}_f1": None}


class NoObjective(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {f"{split}_acc": 1.0, "test_loss": 1.0}


class NoTestObjective(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return super().evaluate(split) if split == "val" else {"test_acc": 0.5}


class OneNameForBothSplits(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {"val_loss": super().evaluate(split)[f"{split}_loss"], "acc": 0.5}


class NumbersOfNumpy(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {name: np.float32(value) for name, value in super().evaluate(split).items()}


class StateHasADeque(Task):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "recent": deque([1]), "rng": {"numpy": np.random.RandomState(1).get_state()}}


class StateHasNoModel(Task):
    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.model.state_dict()}


class ForgetsItsGenerator(Task):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({**state, "rng": self.rng.get_state()})


class ForgetsWhatItNeverSaved(Task):
    def __init__(self, config: Config, *, seed: int, **facts: Any) -> None:
        super().__init__(config, seed=seed, **facts)
        self.scale = 1.0 + seed

    def draw(self) -> torch.Tensor:
        return super().draw() * self.scale


class TakesNoState(Task):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise KeyError("schedule")


class DrawsFromTheGlobalGenerator(Task):
    def draw(self) -> torch.Tensor:
        return torch.randn(8, 2)


class EndsTheProcess(Task):
    def step(self) -> Mapping[str, Any]:
        os._exit(3)


class IsKilled(Task):
    def step(self) -> Mapping[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class LeavesThingsBehind(Task):
    def __init__(self, config: Config, **facts: Any) -> None:
        super().__init__(config, **facts)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        os.environ["LEFT_BEHIND"] = "1"
        os.chdir("/")


class Data:
    names = ("none",)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        return data_dir

    def digest(self, name: str, data_dir: Path) -> str:
        return hashlib.sha256(name.encode()).hexdigest()


DATA = Data()
LOSS = Metric("val_loss", "min", "1", "a loss")
FAMILY = Family(
    name="tried", summary="", config=f"{HERE}:Config", model=f"{HERE}:build", task=f"{HERE}:Task", data=f"{HERE}:DATA",
    objective=LOSS, metrics=(LOSS, Metric("rate", "max", "1/s", "", rate_of="tokens")), presets={"base": {}},
)  # fmt: skip


def tried(task: type[Task], **parts: str) -> list[Finding]:
    return try_task(replace(FAMILY, task=f"{HERE}:{task.__name__}", **parts), Config(), Path("."))


def test_a_sound_task_gives_no_finding() -> None:
    assert tried(Task) == tried(NumbersOfNumpy) == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (CannotBeMade, ["T01 task: fails: ValueError: width = 3 ("]),
        (DataIsDamaged, ["T01 task: set 'none': its digest differs"]),
        (NoTrainLoss, ["T04 task.step(): does not report train_loss, which the search needs; it reports loss, tokens"]),
        (NoCount, ["T04 task.step(): does not report tokens, which"]),
        (NotFinite, ["T02 task.step(): train_loss is nan at step 2"]),
        (TrainsInEvaluation, ["T03 task.evaluate('val'): differs the", "T03 task.evaluate('test'): differs the",
                              "T03 task.evaluate(): changes what training goes on from: state['model']['1.r"]),
        (EvaluatesAtRandom, ["T03 task.evaluate('val'): differs the second time, with the same weights: val_loss is ",
                             "T03 task.evaluate('test'): differs the second time"]),
        (EvaluationFailsOnTest, ["T03 task.evaluate('test'): fails: KeyError: 'test' ("]),
        (ReportsNone, ["T04 task.evaluate('val'): reports val_f1 = None (NoneType): allowed is a number",
                       "T04 task.evaluate('test'): reports test_f1 = None (NoneType): allowed is a number"]),
        (NoObjective, ["T04 task.evaluate('val'): does not report val_loss, which the search needs; it reports val",
                       "T04 task.evaluate('test'): reports under a name of val: test_loss"]),
        (NoTestObjective, ["T04 task.evaluate('test'): does not report test_loss, which"]),
        (OneNameForBothSplits, ["T04 task.evaluate('test'): reports under a name of val: acc (wanted: test_acc), "
                                "val_loss (wanted: test_loss)"]),
        (StateHasADeque, ["T05 task.state_dict(): state['rng']['numpy'][1] is numpy.ndarray",
                          "T05 task.state_dict(): state['recent'] is collections.deque"]),
        (StateHasNoModel, ["T05 task.state_dict(): state_dict() has no key 'model'"]),
        (ForgetsItsGenerator, ["T05 task.load_state_dict(): a task of another seed does not go on bit for bit "
                               "(step 3['train_loss'] is "]),
        (TakesNoState, ["T05 task.load_state_dict(): fails: KeyError: 'schedule' ("]),
        (EndsTheProcess, ["T00 task: ends the process that tries it (exit code 3)"]),
        (IsKilled, ["T00 task: ends the process that tries it (signal SIGKILL)"]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)  # fmt: skip
def test_a_fault_is_found_in_the_part_that_has_it(task: type[Task], said: list[str]) -> None:
    found = [str(finding) for finding in tried(task)]
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found


def test_what_is_not_restored_is_named() -> None:
    (finding,) = tried(ForgetsItsGenerator)
    assert finding.message.endswith("; not restored: state['rng'] differs in value")
    (finding,) = tried(ForgetsWhatItNeverSaved)
    assert (finding.id, finding.part) == ("T05", "task.load_state_dict()")
    assert finding.message.endswith("; state_dict() leaves out what differs in the two: self.scale is 2.0, then 3.0")


def test_a_failure_does_not_keep_other_findings_back() -> None:
    found = {(finding.id, finding.part) for finding in tried(StepFails)}
    assert found == {("T02", "task.step()")}
    found = {(finding.id, finding.part) for finding in tried(DrawsFromTheGlobalGenerator)}
    assert found == {("T05", "task.load_state_dict()"), ("T07", "task")}
    found = {(finding.id, finding.part) for finding in tried(ReportsNone, model=f"{HERE}:build_wider")}
    assert found == {("T04", "task.evaluate('val')"), ("T04", "task.evaluate('test')"), ("T06", "model")}


def test_levels() -> None:
    assert {finding.level for finding in tried(OneNameForBothSplits)} == {"warn"}
    assert {finding.level for finding in tried(NotFinite)} == {"warn"}
    assert {finding.level for finding in tried(NoTestObjective)} == {"refuse"}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    open_files = set(os.listdir("/proc/self/fd"))

    def state() -> tuple[Any, ...]:
        numpy_state = str(np.random.get_state())  # noqa: NPY002
        generators = random.getstate(), numpy_state, torch.get_rng_state().tolist()
        of_torch = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        return *generators, *of_torch, dict(os.environ), Path.cwd(), Task.built

    before = state()
    assert tried(LeavesThingsBehind) == []
    assert state() == before
    assert list(tmp_path.glob("tune-rh*")) == []
    assert set(os.listdir("/proc/self/fd")) == open_files


def test_in_this_process_it_finds_the_same() -> None:
    family = replace(FAMILY, task=f"{HERE}:ForgetsItsGenerator")
    assert Trial(family, Config(), Path("."), "cpu", (), 2).run() == tried(ForgetsItsGenerator)


def test_a_family_without_a_generator_passes() -> None:
    from tests.worlds.family import ScriptedConfig

    assert try_task(SCRIPTED, ScriptedConfig(noise=0.25), Path(".")) == []


@pytest.mark.parametrize("name", ["spacing_mdn"])
def test_a_registered_family_passes(name: str, first100k_dir: Path) -> None:
    from trainables.registry import build_config

    family = get_family(name)
    assert try_task(family, build_config(family, preset="tiny"), first100k_dir) == []
