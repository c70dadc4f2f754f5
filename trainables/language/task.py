"""Training a language model on packed text: what the `TrainTask` of every such family does alike.

It takes one step, or evaluates, when it is told to, and keeps no file and no clock. It draws no random numbers but the
initial weights and the order of the data, which follow from the seed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainables.api import Split, test_metric
from trainables.language.fields import LanguageFields
from trainables.language.sequences import Order, Sequences
from trainables.text.source import TextSplit, load
from trainables.training.seeding import RngStream
from trainables.training.step import OptimStep, parameter_groups, snapshot

_EVAL_TOKENS = 8192
"""Tokens in a batch of evaluation; the same on every device, since sums depend on it in the last bits."""


class LanguageTask(ABC):
    """One model in training on one data set; the seed is of the initial weights and the order of the data.

    A family says how a loss comes of rows of tokens (`_loss`), and how rows are scored (`_scored`).

    Args:
        config: of the family.
        build: makes the model; called on the CPU, so that a seed gives the same weights on every device.
        matrices: the parameters of a model that weight decay is for.
        batches: of ``batch_size`` that a step averages.
        seed, device, data_dir: as `trainables.api.TaskFactory`.

    Raises:
        DataError: the data set is missing, corrupt, or not the config's.
    """

    model: Any
    objective = "eval_loss"
    """What the mean cross-entropy is called on the validation split."""

    def __init__(
        self,
        config: LanguageFields,
        build: Callable[[], nn.Module],
        matrices: Callable[[Any], Iterable[Any]],
        *,
        seed: int,
        device: str,
        data_dir: Path,
        batches: int = 1,
    ) -> None:
        self.config: Any = config
        self._batches_a_step = batches
        self._device = torch.device(device)
        self._data = load(config.data, data_dir)
        self._train = Sequences(self._data.train.tokens, config.context)
        self._order = Order(self._train, seed)
        with RngStream(seed, "weights", torch.device("cpu")):
            self.model = build().to(self._device)
        self._optim = OptimStep(
            parameter_groups(self.model, matrices(self.model), weight_decay=config.weight_decay),
            lr=config.lr_at,
            device=self._device,
            clip=config.clip,
            accumulation=config.accumulation * batches,
            amp=config.amp,
            betas=config.betas,
        )

    def step(self) -> dict[str, float]:
        """Take one optimiser step on ``batch_size`` sequences, or on so many batches of them as are averaged.

        Returns:
            ``train_loss``, ``grad_norm`` (before clipping), ``lr``, ``tokens``, ``skipped_steps`` and the loss's parts.
            Non-finite values are returned, and then no weight has moved.
        """
        config = self.config
        taken = config.batch_size * self._batches_a_step
        starts = self._order.take(taken).chunk(config.accumulation * self._batches_a_step)
        self.model.train()
        report = self._optim.take(lambda index: self._loss(self._train.read(starts[index], self._device)))
        report["tokens"] = float(self._optim.step * taken * config.context)
        report["skipped_steps"] = float(self._optim.skipped)
        return report

    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """Score sequences that are evenly spread over ``split``.

        Returns:
            The objective (``eval_loss``), ``eval_ppl``, ``eval_bits_per_byte`` and what the family reports of the model
            on the way. On the test split all names begin with ``test_``.
        """
        nll, seen = self._scored(self.sequences(split))
        loss = nll.mean().item()
        text = self.text(split)
        report = {
            self.objective: loss,
            "eval_ppl": math.inf if loss >= 700.0 else math.exp(loss),
            "eval_bits_per_byte": loss / math.log(2.0) * len(text.tokens) / text.num_bytes,
            **seen,
        }
        return report if split == "val" else {test_metric(name): value for name, value in report.items()}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._device

    def text(self, split: Split) -> TextSplit:
        """The packed text of a split."""
        return self._data.split(split)

    def sequences(self, split: Split, number: int | None = None) -> Int[Tensor, "sequences time"]:
        """Sequences of ``context`` + 1 tokens, evenly spread over a split; as many as evaluation takes."""
        source = Sequences(self.text(split).tokens, self.config.context)
        return source.read(source.spread(number or self.config.eval_sequences), torch.device("cpu"))

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `step` depends on; plain containers, numbers and tensors."""
        state: dict[str, Any] = snapshot(
            {"model": self.model.state_dict(), "optim": self._optim.state_dict(), "data": self._order.state_dict()}
        )
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, whatever seed this task was built with."""
        self.model.load_state_dict(state["model"])
        self._optim.load_state_dict(state["optim"])
        self._order.load_state_dict(state["data"])

    @abstractmethod
    def _loss(self, rows: Int[Tensor, "batch time"]) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a micro-batch, and parts of it to report; rows are inputs but for the last token."""

    @abstractmethod
    def _scored(
        self, sequences: Int[Tensor, "sequences time"]
    ) -> tuple[Float[Tensor, "sequences targets"], dict[str, float]]:
        """Negative log likelihood of each target in nats, float64, and metrics of what the model did."""

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The model evaluates, without gradients and in the precision of training."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), self._optim.autocast():
                yield
        finally:
            self.model.train(training)

    def _batches(self, sequences: Int[Tensor, "sequences time"]) -> Iterator[Int[Tensor, "batch time"]]:
        """Rows on the device, a batch at a time."""
        size = max(1, _EVAL_TOKENS // (sequences.shape[1] - 1))
        return (batch.to(self._device) for batch in torch.split(sequences, size))


def losses(logits: Float[Tensor, "batch time vocabulary"], rows: Int[Tensor, "batch time"]) -> Float[Tensor, " target"]:
    """Cross-entropy of each target of ``rows``, all tokens but the first, in float32 and in one row."""
    return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none")
