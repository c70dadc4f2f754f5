"""What both forms of tracking do in a step: the correction is taken at the common mode of the states, where it moves.

With zbar = (z+ + z-) / 2 and d = (z+ - z-) / 2 the correction of z+ is (J - J')d, that of z- its opposite, J at zbar.
J d is half of F(z+) - F(z-), which is there already; J'd takes one backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.linearised import Linearised, Vector

Pair = Float[Tensor, "2 batch time width"]


@dataclass(frozen=True)
class Forces:
    """What acts on two states.

    Attributes:
        field: F at both.
        pull: g at both.
        transposed: J'd, J at their common mode.
    """

    field: Pair
    pull: Pair
    transposed: Vector

    def residual(self, beta: float) -> Tensor:
        """|J'a - g| / |g| of the contrast a = d / beta, with the mean of both pulls."""
        pull = beta * self.pull.mean(dim=0)
        residual: Tensor = (self.transposed - pull).norm() / pull.norm()
        return residual


def forces(problem: Problem, common: Vector, contrast: Vector) -> Forces:
    """The forces on common + contrast and common - contrast."""
    linearised = Linearised(problem.field, common)
    transposed = linearised.transposed(contrast)
    with torch.no_grad():
        states = torch.stack([common + contrast, common - contrast])
        return Forces(problem.field(states), problem.readout.force(states), transposed)
