"""What an estimator is given and what it returns.

At the free state z* with J = dF/dz and g the gradient of the summed loss in z, the exact gradient in the weights is
-a'dF/dtheta and the readout's own term, where J'a = g (Scellier & Bengio 2017; Bai et al. 2019). An estimator comes by
an estimate of a (all but ``bptt``, which has no use for one), and `Problem.gradients` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainables.equilibrium.config import EquilibriumConfig
from trainables.equilibrium.field import make_field
from trainables.equilibrium.linearised import Linearised, Vector
from trainables.equilibrium.readout import Readout
from trainables.equilibrium.relaxation import Relaxed, relax

Stopped = Literal["end", "tolerance", "patience", "diverged"]


@dataclass(frozen=True)
class Evidence:
    """How an estimate was come by.

    Attributes:
        rho: adjoint residual |J'a - g| / |g| of the estimate.
        selected: nudged step that it was taken at, or products with the Jacobian that it took.
        steps: nudged steps that were taken.
        stopped: why no more of them were taken.
        moved: |z_beta - z*| / |z*| of the first nudged state when it was taken; None without such states.
        drift: the same of the mean of the nudged states.
    """

    rho: float
    selected: int
    steps: int
    stopped: Stopped
    moved: float | None = None
    drift: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The loss of a batch with an estimate of its gradient.

    Attributes:
        loss: mean cross-entropy at the free state, in nats.
        gradients: of that mean, by the name of the weight.
        free: the free phase; its state is the one the gradient was taken at.
        adjoint: a, for the summed loss; None where the estimator has none.
        evidence: None where there was nothing to be iterated.
    """

    loss: Float[Tensor, ""]
    gradients: Mapping[str, Tensor]
    free: Relaxed
    adjoint: Vector | None = None
    evidence: Evidence | None = None


class Problem:
    """One batch of text under given weights: its field, its readout, and, when first asked for, its free state.

    Args:
        config: the sizes, and all that steers relaxation and estimators.
        weights: by name, of tensors that ask for gradients.
        rows: tokens; all but the last are inputs, all but the first are targets.
    """

    def __init__(
        self, config: EquilibriumConfig, weights: Mapping[str, Tensor], rows: Int[Tensor, "batch time1"]
    ) -> None:
        self.config = config
        self.weights = weights
        self.ids, self.targets = rows[:, :-1], rows[:, 1:]
        fixed = {name: weight.detach() for name, weight in weights.items()}
        with torch.no_grad():
            self.field = make_field(config, fixed, self.ids)
        self.readout = Readout(config, fixed, self.targets)

    @cached_property
    def free(self) -> Relaxed:
        """The free phase that estimators begin from."""
        config = self.config
        return relax(self.field, config.t1_refine or config.t1, config.eps, anderson=config.anderson)

    @cached_property
    def linearised(self) -> Linearised:
        """The Jacobian at the free state."""
        return Linearised(self.field, self.free.z)

    @cached_property
    def pull(self) -> Vector:
        """g: the gradient of the summed loss in the free state."""
        return self.readout.force(self.free.z)

    def adjoint_residual(self, adjoint: Vector) -> Float[Tensor, ""]:
        """|J'a - g| / |g| at the free state."""
        residual: Tensor = (self.linearised.transposed(adjoint) - self.pull).norm() / self.pull.norm()
        return residual

    def estimate(self, adjoint: Vector, evidence: Evidence) -> Estimate:
        """The loss, and the gradient that ``adjoint`` gives: -a'dF/dtheta and the readout's own term."""
        z = self.free.z
        with torch.enable_grad():
            loss = Readout(self.config, self.weights, self.targets).loss(z)
            force = make_field(self.config, self.weights, self.ids)(z)
            total = loss - (adjoint * force).sum() / self.targets.numel()
            gradients = gradients_of(total, self.weights)
        return Estimate(loss.detach(), gradients, self.free, adjoint, evidence)


def gradients_of(value: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a number by the name of the weight; zeros for those that it does not depend on."""
    found = torch.autograd.grad(value, list(weights.values()), materialize_grads=True, allow_unused=True)
    return dict(zip(weights, found, strict=True))


class Estimator(Protocol):
    """Estimates the gradient of the loss of a batch; draws no random numbers and keeps nothing from call to call."""

    def __call__(self, problem: Problem) -> Estimate:
        """The estimate; one that diverged is returned as it is, with the evidence."""
        ...
