"""Training and evaluation of `shared_moe`: the family's `TrainTask`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trainables.language.task import LanguageTask, losses
from trainables.shared_moe.config import SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import SharedMoE
from trainables.shared_moe.routing import Routing, aux_coefficient, balance_metrics


class SharedMoETask(LanguageTask):
    """A `LanguageTask` whose loss has an auxiliary part, and whose routers may be rebalanced after a step.

    Beside what every language model reports, a mixture of experts reports ``train_aux``, ``train_z`` and ``aux_coef``
    of a step; and of an evaluation ``eval_aux``, ``token_drop`` and how evenly the load was spread
    (`routing.balance_metrics`).
    """

    config: SharedMoEConfig
    model: SharedMoE

    def __init__(self, config: SharedMoEConfig, *, seed: int, device: str, data_dir: Path) -> None:
        super().__init__(config, lambda: SharedMoE(config), _matrices, seed=seed, device=device, data_dir=data_dir)
        self._counts: Tensor | None = None

    def step(self) -> dict[str, float]:
        """Take one optimiser step on ``batch_size`` sequences."""
        coefficient = aux_coefficient(self.config, self._optim.step)
        self._counts = None
        skipped = self._optim.skipped
        report = super().step()
        if self.config.ffn == "moe":
            report["aux_coef"] = coefficient
            if self.config.balance == "lossfree" and self._optim.skipped == skipped:
                self._rebalance()
        return report

    def score(
        self, sequences: Int[Tensor, "sequences time"], dropped: Bool[Tensor, " experts"] | None = None
    ) -> tuple[Float[Tensor, "sequences targets"], Routing | None]:
        """Score sequences of tokens, of which all but the first are targets; no router may choose a ``dropped`` expert.

        Returns:
            Negative log likelihood of each target in nats, float64, and what the routers did over all of them.
        """
        found, counts, importance, squares = [], [], [], []
        with self._evaluating():
            for rows in self._batches(sequences):
                output = self.model(rows[:, :-1], dropped)
                found.append(losses(output.logits, rows).view(len(rows), -1).double())
                if output.routing is not None:
                    share = len(rows) / len(sequences)  # batches differ in size: counts add up, means are weighted
                    counts.append(output.routing.counts.long())
                    importance.append(output.routing.importance.double() * share)
                    squares.append(output.routing.squared_logsumexp.double() * share)
        nll = torch.cat(found)
        if not counts:
            return nll, None
        return nll, Routing(*(torch.stack(parts).sum(dim=0) for parts in (counts, importance, squares)))

    def _scored(
        self, sequences: Int[Tensor, "sequences time"]
    ) -> tuple[Float[Tensor, "sequences targets"], dict[str, float]]:
        nll, routing = self.score(sequences)
        if routing is None:
            return nll, {}
        sent = routing.counts.sum().item() / (self.config.depth * self.config.top_k * nll.numel())
        seen = {"eval_aux": routing.aux_loss().item(), "token_drop": 1.0 - sent}
        return nll, seen | balance_metrics(routing.counts, shared=self.config.blocks == "shared")

    def _loss(self, rows: Int[Tensor, "batch time"]) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.model(rows[:, :-1])
        cross_entropy = losses(output.logits, rows).mean()
        loss, parts = cross_entropy, {"train_ce": cross_entropy}
        routing: Routing | None = output.routing
        if routing is not None:
            parts |= {"train_aux": routing.aux_loss(), "train_z": routing.z_loss()}
            coefficient = aux_coefficient(self.config, self._optim.step)
            loss = loss + coefficient * parts["train_aux"] + self.config.z_loss_coef * parts["train_z"]
            self._counts = routing.counts if self._counts is None else self._counts + routing.counts
        return loss, parts

    def _rebalance(self) -> None:
        """Move the routers' biases once, by the load of the whole step."""
        assert self._counts is not None
        counts = self._counts.sum(dim=0, keepdim=True) if self.config.blocks == "shared" else self._counts
        for router, mine in zip(self.model.routers(), counts, strict=True):
            router.rebalance(mine, self.config.bias_update_rate)


def _matrices(model: SharedMoE) -> Iterator[Tensor]:
    """Matrices decay, the embedding among them; biases, norms, positions and depth embeddings do not."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            yield module.weight
        elif isinstance(module, Experts):
            yield from (module.w_in, module.w_out)
