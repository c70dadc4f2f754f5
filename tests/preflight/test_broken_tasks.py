"""More that the trial round trip finds: each task is sound but for one thing, and the part that has it is named."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.preflight.test_trial import FAMILY, Config, Task
from trainables.api import Finding, Metric
from tune_rh.preflight.trial import try_task

HERE = __name__


class StaysInEvaluation(Task):
    """After an evaluation its steps no longer take the batch's own statistics."""

    def step(self) -> Mapping[str, Any]:
        self.count += 1
        loss = self.model(self.draw()).square().mean() + self.model[0].weight.sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"train_loss": loss.item(), "tokens": 8.0 * self.count}


class EvaluationMovesADataPosition(Task):
    position = 0

    def draw(self) -> torch.Tensor:
        self.position += 1
        return super().draw() + self.position

    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        self.position += 3
        return super().evaluate(split)


class EvaluationMovesAPositionThatIsSaved(EvaluationMovesADataPosition):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.position = state["position"]


class SavingDraws(Task):
    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        self.draw()
        return state


class ReturnsNoState(Task):
    def state_dict(self) -> dict[str, Any]:
        super().state_dict()
        return None  # type: ignore[return-value]


class SavesOnce(Task):
    saved = 0

    def state_dict(self) -> dict[str, Any]:
        self.saved += 1
        if self.saved > 3:
            raise RuntimeError("no more")
        return super().state_dict()


class HasItsOwnRandom(Task):
    def __init__(self, config: Config, *, seed: int, **facts: Any) -> None:
        super().__init__(config, seed=seed, **facts)
        self.own = random.Random(seed)

    def draw(self) -> torch.Tensor:
        return super().draw() * self.own.random()


class IsCompiled(Task):
    """Its weights are called as `torch.compile` calls them."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "model": {f"_orig_mod.{name}": value for name, value in state["model"].items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        weights = {name.removeprefix("_orig_mod."): value for name, value in state["model"].items()}
        super().load_state_dict({**state, "model": weights})


class EmptiesWhatItIsGiven(Task):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert isinstance(state, dict)
        super().load_state_dict({key: state.pop(key) for key in list(state)})


class TakesAnySeedButOne(Task):
    def __init__(self, config: Config, *, seed: int, **facts: Any) -> None:
        if seed != 1:
            raise ValueError("only seed 1")
        super().__init__(config, seed=seed, **facts)


class TakesNoSeed(Task):
    def __init__(self, config: Config, device: str, data_dir: Path) -> None:
        super().__init__(config, seed=1, device=device, data_dir=data_dir)


class CountsOneStep(Task):
    def step(self) -> Mapping[str, Any]:
        return {**super().step(), "tokens": 8.0}


class CountsDown(Task):
    def step(self) -> Mapping[str, Any]:
        return {**super().step(), "tokens": 8.0 / self.count}


class ReportsTextAsALoss(Task):
    def step(self) -> Mapping[str, Any]:
        return {**super().step(), "train_loss": "1.0"}


class ReportsPairs(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return list(super().evaluate(split).items())  # type: ignore[return-value]


class ReportsUnderANumber(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {**super().evaluate(split), 3: 1.0}  # type: ignore[dict-item]


class EvaluatesTheTrainLoss(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        return {**super().evaluate(split), "train_loss": 0.5} if split == "val" else super().evaluate(split)


class HasNoTestSplit(Task):
    def evaluate(self, split: str = "val") -> Mapping[str, Any]:
        if split == "test":
            raise NotImplementedError
        return super().evaluate(split)


class Exits(Task):
    def step(self) -> Mapping[str, Any]:
        sys.exit("no licence")


class EndsWithTheSecondStep(Task):
    def step(self) -> Mapping[str, Any]:
        if self.count == 1:
            raise StopIteration
        return super().step()


def tried(task: type[Task], **parts: Any) -> list[Finding]:
    return try_task(replace(FAMILY, task=f"{HERE}:{task.__name__}", **parts), Config(), Path("."))


GOES_ON = "T03 task.evaluate(): changes how training goes on, or saving does (step 3['train_loss'] is "
NOT_RESTORED = "T05 task.load_state_dict(): a task of another seed does not go on bit for bit (step 3['train_loss'] is"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (StaysInEvaluation, [GOES_ON]),
        (EvaluationMovesADataPosition, [GOES_ON, NOT_RESTORED]),
        (EvaluationMovesAPositionThatIsSaved, ["T03 task.evaluate(): changes what training goes on from: "
                                               "state['position'] is 2, then 14"]),
        (SavingDraws, ["T03 task.evaluate(): changes what training goes on from: state['rng'] differs in value"]),
        (ReturnsNoState, ["T05 task.state_dict(): state_dict() returns NoneType: allowed is a mapping with the key"]),
        (SavesOnce, ["T05 task.state_dict(): fails: RuntimeError: no more ("]),
        (HasItsOwnRandom, [NOT_RESTORED]),
        (IsCompiled, ["T06 model: fails: RuntimeError: Error(s) in loading state_dict for Sequential: Missing key(s)"]),
        (EmptiesWhatItIsGiven, []),
        (TakesAnySeedButOne, ["T01 task: fails: ValueError: only seed 1 ("]),
        (TakesNoSeed, ["T01 task: fails: TypeError: TakesNoSeed.__init__() got an unexpected keyword argument 'seed'"]),
        (CountsOneStep, ["T04 task.step(): tokens is 8 after step 1 and 8 after step 2: a count behind a rate is of"]),
        (CountsDown, ["T04 task.step(): tokens is 8 after step 1 and 4 after step 2: a count behind a rate is of"]),
        (ReportsTextAsALoss, ["T04 task.step(): reports train_loss = '1.0' (str): allowed is a number"]),
        (ReportsPairs, ["T04 task.evaluate('val'): returns [('val_loss', ", "T04 task.evaluate('test'): returns [("]),
        (ReportsUnderANumber, ["T04 task.evaluate('val'): reports a metric called 3 (int): allowed is text",
                               "T04 task.evaluate('test'): reports a metric called 3 (int): allowed is text"]),
        (EvaluatesTheTrainLoss, ["T04 task.evaluate(): reports under a name of step(): train_loss"]),
        (HasNoTestSplit, ["T03 task.evaluate('test'): fails: NotImplementedError ("]),
        (Exits, ["T02 task.step(): fails: SystemExit: no licence ("]),
        (EndsWithTheSecondStep, ["T02 task.step(): fails: StopIteration ("]),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)  # fmt: skip
def test_a_fault_is_found_once_in_the_part_that_has_it(task: type[Task], said: list[str]) -> None:
    found = [str(finding) for finding in tried(task)]
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found


def test_a_count_that_falls_is_refused_and_one_that_stands_still_is_said() -> None:
    assert [finding.level for finding in (*tried(CountsDown), *tried(CountsOneStep))] == ["refuse", "warn"]


def test_a_metric_that_the_family_declares_is_missed() -> None:
    declared = (*FAMILY.metrics, Metric("val_f1", "max", "1", "another"))
    family = replace(FAMILY, task=f"{HERE}:Task", metrics=declared)
    assert try_task(family, Config(), Path(".")) == []
    (finding,) = try_task(family, Config(), Path("."), wanted=None)
    expected = "T04 task: does not report val_f1, which its family declares"
    assert (str(finding), finding.level) == (expected, "warn")
