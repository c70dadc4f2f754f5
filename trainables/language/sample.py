"""Sequences that a model is looked at on: a sample for diagnostics, and one for the law that models are causal.

The sample is the same, of one split, for every model of the same data and context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainables.api import CausalProbe, Split
from trainables.language.sequences import Sequences, evenly
from trainables.language.task import LanguageTask

NUM_SEQUENCES = 64
Task = TypeVar("Task", bound=LanguageTask)


@dataclass(frozen=True)
class Sample(Generic[Task]):
    """The sample, in order of the text; each token of a sequence but the first is a target."""

    task: Task
    split: Split
    starts: Int[Tensor, " sequences"]
    sequences: Int[Tensor, "sequences time"]

    def at_most(self, number: int) -> Sample[Task]:
        """``number`` of them, from 1 on, evenly spread; all, if there are no more."""
        if number < 1:
            raise ValueError(f"at_most: number = {number}; allowed is 1 or more")
        total = len(self.starts)
        if total <= number:
            return self
        index = evenly(number, total)
        return replace(self, starts=self.starts[index], sequences=self.sequences[index])


def draw(task: Task, split: Split = "val", number: int = NUM_SEQUENCES) -> Sample[Task]:
    """Take ``number`` sequences (all there are, if fewer) without overlap, evenly spread over the split."""
    source = Sequences(task.text(split).tokens, task.config.context)
    starts = source.spread(number)
    return Sample(task, split, starts, source.read(starts, torch.device("cpu")))


def probe(task: LanguageTask) -> CausalProbe:
    """The logits along one sequence of the validation split."""
    (tokens,) = task.sequences("val", 1)

    @torch.inference_mode()
    def predict(row: Int[Tensor, " time"]) -> Float[Tensor, "targets vocabulary"]:
        training = task.model.training
        task.model.eval()
        logits: Tensor = task.model(row[None, :-1].to(task.device)).logits[0]
        task.model.train(training)
        return logits

    return CausalProbe(tokens, (tokens + 1) % task.config.vocab_size, predict, torch.arange(1, len(tokens)))
