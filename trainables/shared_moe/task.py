"""Training and evaluation of `shared_moe`: the family's `TrainTask`.

It takes one step, or evaluates, when it is told to, and keeps no file and no clock. It draws no random numbers but the
initial weights and the order of the data, which follow from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainables.api import Split
from trainables.shared_moe.config import SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import SharedMoE
from trainables.shared_moe.routing import Routing, aux_coefficient, balance_metrics
from trainables.shared_moe.sequences import Order, Sequences
from trainables.text.source import TextSplit, load
from trainables.training.seeding import RngStream
from trainables.training.step import OptimStep, parameter_groups, snapshot

_EVAL_TOKENS = 8192
"""Tokens in a batch of evaluation; the same on every device, since sums depend on it in the last bits."""


class SharedMoETask:
    """One model in training on one data set; the seed is of the initial weights and the order of the data.

    Raises `DataError` if the data set is missing, corrupt, or not the config's.
    """

    def __init__(self, config: SharedMoEConfig, *, seed: int, device: str, data_dir: Path) -> None:
        self.config = config
        self._device = torch.device(device)
        self._data = load(config.data, data_dir)
        self._train = Sequences(self._data.train.tokens, config.context)
        self._order = Order(self._train, seed)
        # Built on the CPU, so that a seed gives the same weights on every device.
        with RngStream(seed, "weights", torch.device("cpu")):
            self.model = SharedMoE(config).to(self._device)
        self._counts: Tensor | None = None
        self._optim = OptimStep(
            _parameter_groups(self.model, config),
            lr=config.lr_at,
            device=self._device,
            clip=config.clip,
            accumulation=config.accumulation,
            amp=config.amp,
            betas=(0.9, 0.95),
        )

    def step(self) -> dict[str, float]:
        """Take one optimiser step on ``batch_size`` sequences.

        Returns:
            ``train_loss``, ``train_ce``, ``grad_norm`` (before clipping), ``lr``, ``tokens`` and ``skipped_steps``; of
            a mixture of experts also ``train_aux``, ``train_z`` and ``aux_coef``. Non-finite values are returned, and
            then no weight has moved.
        """
        config = self.config
        coefficient = aux_coefficient(config, self._optim.step)
        starts = self._order.take(config.batch_size).chunk(config.accumulation)
        self.model.train()
        self._counts = None
        skipped = self._optim.skipped
        report = self._optim.take(lambda index: self._loss(starts[index], coefficient))
        if config.ffn == "moe":
            report["aux_coef"] = coefficient
            if config.balance == "lossfree" and self._optim.skipped == skipped:
                self._rebalance()
        report["tokens"] = float(self._optim.step * config.batch_size * config.context)
        report["skipped_steps"] = float(self._optim.skipped)
        return report

    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """Score sequences that are evenly spread over ``split``.

        Returns:
            ``eval_loss``, ``eval_ppl``, ``eval_bits_per_byte``; of a mixture of experts also ``eval_aux``,
            ``token_drop`` and how evenly the load was spread (`routing.balance_metrics`). On the test split all names
            begin with ``test_``.
        """
        nll, routing = self.score(self.sequences(split))
        loss = nll.mean().item()
        text = self.text(split)
        report = {
            "eval_loss": loss,
            "eval_ppl": math.inf if loss >= 700.0 else math.exp(loss),
            "eval_bits_per_byte": loss / math.log(2.0) * len(text.tokens) / text.num_bytes,
        }
        if routing is not None:
            sent = routing.counts.sum().item() / (self.config.depth * self.config.top_k * nll.numel())
            report["eval_aux"] = routing.aux_loss().item()
            report["token_drop"] = 1.0 - sent
            report |= balance_metrics(routing.counts, shared=self.config.blocks == "shared")
        return report if split == "val" else {f"test_{name}": value for name, value in report.items()}

    @torch.inference_mode()
    def score(
        self, sequences: Int[Tensor, "sequences time"], dropped: Bool[Tensor, " experts"] | None = None
    ) -> tuple[Float[Tensor, "sequences targets"], Routing | None]:
        """Score sequences of tokens, of which all but the first are targets; no router may choose a ``dropped`` expert.

        Returns:
            Negative log likelihood of each target in nats, float64, and what the routers did over all of them.
        """
        losses, counts, importance, squares = [], [], [], []
        training = self.model.training
        self.model.eval()
        size = max(1, _EVAL_TOKENS // (sequences.shape[1] - 1))
        for batch in torch.split(sequences, size):
            rows = batch.to(self._device)
            with self._optim.autocast():
                output = self.model(rows[:, :-1], dropped)
            losses.append(_cross_entropy(output.logits, rows[:, 1:]).view(len(rows), -1).double())
            if output.routing is not None:
                share = len(rows) / len(sequences)  # batches differ in size: counts add up, means are weighted
                counts.append(output.routing.counts.long())
                importance.append(output.routing.importance.double() * share)
                squares.append(output.routing.squared_logsumexp.double() * share)
        self.model.train(training)
        nll = torch.cat(losses)
        if not counts:
            return nll, None
        return nll, Routing(*(torch.stack(parts).sum(dim=0) for parts in (counts, importance, squares)))

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

    def _loss(self, starts: Tensor, coefficient: float) -> tuple[Tensor, dict[str, Tensor]]:
        rows = self._train.read(starts, self._device)
        output = self.model(rows[:, :-1])
        cross_entropy = _cross_entropy(output.logits, rows[:, 1:]).mean()
        loss, parts = cross_entropy, {"train_ce": cross_entropy}
        routing: Routing | None = output.routing
        if routing is not None:
            parts |= {"train_aux": routing.aux_loss(), "train_z": routing.z_loss()}
            loss = loss + coefficient * parts["train_aux"] + self.config.z_loss_coef * parts["train_z"]
            self._counts = routing.counts if self._counts is None else self._counts + routing.counts
        return loss, parts

    def _rebalance(self) -> None:
        """Move the routers' biases once, by the load of the whole step."""
        assert self._counts is not None
        counts = self._counts.sum(dim=0, keepdim=True) if self.config.blocks == "shared" else self._counts
        for router, mine in zip(self.model.routers(), counts, strict=True):
            router.rebalance(mine, self.config.bias_update_rate)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Of each target in float32, in one row."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")


def _parameter_groups(model: SharedMoE, config: SharedMoEConfig) -> list[dict[str, Any]]:
    """Matrices decay, the embedding among them; biases, norms, positions and depth embeddings do not."""
    matrices: list[Any] = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            matrices.append(module.weight)
        elif isinstance(module, Experts):
            matrices += [module.w_in, module.w_out]
    return parameter_groups(model, matrices, weight_decay=config.weight_decay)
