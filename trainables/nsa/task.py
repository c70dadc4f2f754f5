"""Training and evaluation of `nsa`: the family's `TrainTask`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainables.language.task import LanguageTask, losses
from trainables.nsa.config import NSAConfig
from trainables.nsa.model import NSAModel
from trainables.nsa.tally import Tally, mismatches


class NSATask(LanguageTask):
    """A `LanguageTask` that counts what attention reads.

    Every ``reads_every`` steps, and in every evaluation, the keys that were really read are compared with the closed
    form; ``reads_mismatch`` is the number of queries so far that differed, and any at all stops a member.
    """

    config: NSAConfig
    model: NSAModel

    def __init__(self, config: NSAConfig, *, seed: int, device: str, data_dir: Path) -> None:
        super().__init__(config, lambda: NSAModel(config), _matrices, seed=seed, device=device, data_dir=data_dir)
        self._wrong = 0.0
        self._counted = False

    def step(self) -> dict[str, float]:
        """Take one optimiser step on ``batch_size`` sequences."""
        self._counted = self.config.attn == "nsa" and self._optim.step % self.config.reads_every == 0
        before = self._fallbacks()
        report = super().step()
        report["fallbacks"] = float(self._fallbacks() - before)
        if self.config.attn == "nsa":
            self._wrong += report.pop("wrong", 0.0) * self.config.accumulation
            report["reads_mismatch"] = self._wrong
        return report

    def _fallbacks(self) -> int:
        return sum(getattr(block.attention, "fallbacks", 0) for block in self.model.layers())

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `step` depends on, and of what it has counted."""
        return {**super().state_dict(), "wrong": self._wrong}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, whatever seed this task was built with."""
        super().load_state_dict(state)
        self._wrong = float(state["wrong"])

    def score(self, sequences: Int[Tensor, "sequences time"]) -> Float[Tensor, "sequences targets"]:
        """Negative log likelihood of each target, all tokens but the first, in nats and float64."""
        return self._scored(sequences)[0]

    def _scored(
        self, sequences: Int[Tensor, "sequences time"]
    ) -> tuple[Float[Tensor, "sequences targets"], dict[str, float]]:
        tally = Tally(self.config.sparsity, self.config.gate)
        sparse = self.config.attn == "nsa"
        found = []
        with self._evaluating():
            for rows in self._batches(sequences):
                output = self.model(rows[:, :-1], counted=sparse)
                found.append(losses(output.logits, rows).view(len(rows), -1).double())
                if sparse:
                    tally.add(output.seen)
        return torch.cat(found), tally.metrics() if sparse else {}

    def _loss(self, rows: Int[Tensor, "batch time"]) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.model(rows[:, :-1], counted=self._counted)
        loss = losses(output.logits, rows).mean()
        if not self._counted:
            return loss, {}
        return loss, {
            "wrong": torch.stack([mismatches(seen.reads, self.config.sparsity) for seen in output.seen]).sum()
        }


def _matrices(model: NSAModel) -> Iterator[Tensor]:
    """Matrices decay, the embedding among them; biases, norms and positions within a block do not."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            yield module.weight
