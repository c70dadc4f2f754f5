"""Training and evaluation of `equilibrium`: the family's `TrainTask`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainables.api import Split
from trainables.equilibrium import probe, stability
from trainables.equilibrium.config import EquilibriumConfig
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.model import EquilibriumModel
from trainables.language.task import LanguageTask, losses
from trainables.training.seeding import derive_seed
from trainables.training.step import snapshot

_REMEMBERED = 101
"""Norms of the adjoint that a new one is compared with the median of."""
_SMOOTHING = 0.95


class EquilibriumTask(LanguageTask):
    """A `LanguageTask` whose gradient is made by an estimator, and handed to the optimiser as it is.

    Besides weights and optimiser a step depends on the weight of the Jacobian's penalty; all that is reported of past
    steps is kept with it.
    """

    config: EquilibriumConfig
    model: EquilibriumModel
    objective = "val_ce"

    def __init__(self, config: EquilibriumConfig, *, seed: int, device: str, data_dir: Path) -> None:
        super().__init__(
            config,
            lambda: EquilibriumModel(config),
            EquilibriumModel.matrices,
            seed=seed,
            device=device,
            data_dir=data_dir,
            batches=config.navg,
        )
        self._seed = seed
        self._micro = 0
        self._jr = config.jr
        self._pinned = 0
        self._norms: list[float] = []
        self._smoothed, self._weight, self._least = 0.0, 0.0, float("inf")
        self._bound: stability.SpectralBound | None = None
        if config.spec_rho is not None:
            self._bound = stability.SpectralBound(self.model.recurrent(), config.spec_rho)

    def step(self) -> dict[str, float]:
        """Take one optimiser step on ``navg`` batches, then bound the matrices and average the weights."""
        self._micro = 0
        report = super().step()
        if self._bound is not None:
            self._bound.apply()
        self.model.average(self._optim.step)
        if self.config.jr_mode != "off":
            self._jr = stability.next_weight(self._jr, report["step_residual"], self.config)
            self._pinned = self._pinned + 1 if self._jr >= self.config.jr_max else 0
            report |= {"jr": self._jr, "jr_pinned": float(self._pinned)}
        if "adjoint_norm" in report:
            report["adjoint_growth"] = self._growth(report["adjoint_norm"])
        report["loss_rebound"] = self._rebound(report["train_ce"])
        return report

    def _growth(self, norm: float) -> float:
        """The norm of the adjoint over the median of those before it."""
        growth = norm / statistics.median(self._norms) if self._norms else 1.0
        if norm == norm and norm > 0.0:
            self._norms = [*self._norms[-_REMEMBERED + 1 :], norm]
        return growth

    def _rebound(self, loss: float) -> float:
        """How far the smoothed loss is above its least value so far."""
        self._smoothed = _SMOOTHING * self._smoothed + (1.0 - _SMOOTHING) * loss
        self._weight = _SMOOTHING * self._weight + 1.0 - _SMOOTHING
        smoothed = self._smoothed / self._weight
        self._least = min(self._least, smoothed)
        return smoothed - self._least

    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """Score sequences of ``split``; on val, look at the gradient as well (`probe.look`)."""
        report = super().evaluate(split)
        if split == "val":
            rows = self.sequences("val", min(probe.SEQUENCES, self.config.eval_sequences)).to(self._device)
            report |= probe.look(self.config, self.model.weights, rows)
        return report

    def problem(self, rows: Int[Tensor, "batch time1"]) -> Problem:
        """The weights as they are, on ``rows``: what estimators and diagnostics begin from."""
        return Problem(self.config, self.model.weights, rows.to(self._device))

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `step` depends on, and of what it tells of past steps."""
        own = {
            "seed": self._seed,
            "jr": self._jr,
            "pinned": self._pinned,
            "norms": list(self._norms),
            "smoothed": [self._smoothed, self._weight, self._least],
            "bound": {} if self._bound is None else snapshot(self._bound.state_dict()),
        }
        return {**super().state_dict(), "equilibrium": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, whatever seed this task was built with."""
        super().load_state_dict(state)
        own = state["equilibrium"]
        self._seed, self._jr, self._pinned = int(own["seed"]), float(own["jr"]), int(own["pinned"])
        self._norms = [float(norm) for norm in own["norms"]]
        self._smoothed, self._weight, self._least = map(float, own["smoothed"])
        if self._bound is not None:
            self._bound.load_state_dict(own["bound"])

    def _scored(
        self, sequences: Int[Tensor, "sequences time"]
    ) -> tuple[Float[Tensor, "sequences targets"], dict[str, float]]:
        found, residuals = [], []
        with self._evaluating():
            for rows in self._batches(sequences):
                output = self.model(rows[:, :-1])
                found.append(losses(output.logits, rows).view(len(rows), -1).double())
                residuals.append(output.free.residual * len(rows))
        return torch.cat(found), {"eval_residual": float(torch.stack(residuals).sum() / len(sequences))}

    def _loss(self, rows: Int[Tensor, "batch time"]) -> tuple[Tensor, dict[str, Tensor]]:
        problem = Problem(self.config, self.model.weights, rows)
        estimate = ESTIMATORS[self.config.estimator_at(self._optim.step)](problem)
        loss, gradients, parts = self._stabilised(problem, estimate)
        held = self.config.head_clamp_step
        if held is not None and self._optim.step >= held:
            gradients = probe.body(self.config, gradients)
        weights = [self.model.get_parameter(name) for name in gradients]
        planted: Tensor = _WithGradients.apply(loss, list(gradients.values()), *weights)  # type: ignore[no-untyped-call]
        return planted, _evidence(estimate) | parts

    def _stabilised(
        self, problem: Problem, estimate: Estimate
    ) -> tuple[Tensor, Mapping[str, Tensor], dict[str, Tensor]]:
        """The loss and the gradient with all that is added to them, and how much that was."""
        # What stabilises acts at the state that the estimate was taken at.
        problem.free = estimate.free
        loss, gradients, parts = estimate.loss, estimate.gradients, dict[str, Tensor]()
        if self.config.jr_mode != "off":
            value, of_penalty = stability.penalty(problem, self._direction(problem.free.z))
            size, of_loss = stability.norm_of(of_penalty), stability.norm_of(gradients)
            weight = stability.capped(self._jr, self.config.jr_cap, of_loss, size)
            total = stability.combined(gradients, of_penalty, weight)
            parts |= {"train_penalty": value, "jac_ratio": weight * size / of_loss}
            parts["loss_cosine"] = stability.cosine(gradients, total)
            loss, gradients = loss + weight * value, total
        if self.config.resreg:
            value, of_residual = stability.residual_penalty(problem)
            loss = loss + self.config.resreg * value
            gradients = stability.combined(gradients, of_residual, self.config.resreg)
        return loss, gradients, parts

    def _direction(self, z: Tensor) -> Tensor:
        """The vector of Hutchinson's estimate: other ones for each micro-batch of each step."""
        purpose = f"hutchinson {self._optim.step} {self._micro}"
        self._micro += 1
        generator = torch.Generator(z.device).manual_seed(derive_seed(self._seed, purpose))
        return torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)


def _evidence(estimate: Estimate) -> dict[str, Tensor]:
    """What a step reports of its estimate."""
    free = estimate.free
    found = {"train_ce": estimate.loss, "residual": free.residual, "step_residual": free.eps * free.residual}
    if estimate.adjoint is not None:
        tokens = estimate.adjoint.shape[0] * estimate.adjoint.shape[1]
        found["adjoint_norm"] = estimate.adjoint.norm() / tokens**0.5
    if estimate.evidence is not None:
        seen = estimate.evidence
        numbers = {"rho": seen.rho, "selected": seen.selected, "nudged_steps": seen.steps}
        if seen.moved is not None and seen.drift is not None:
            numbers |= {"moved": seen.moved, "drift": seen.drift}
        found |= {name: free.residual.new_tensor(float(value)) for name, value in numbers.items()}
    return found


class _WithGradients(torch.autograd.Function):
    """A number whose gradients in the weights are those that are given."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *weights: Tensor) -> Tensor:
        """``value``."""
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The given gradients, scaled as the number was."""
        return (None, None, *(gradient * given for given in ctx.gradients))
