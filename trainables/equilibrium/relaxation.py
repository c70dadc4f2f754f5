"""The free phase: steps along the field until the state hardly moves, with the residual of each as evidence.

Two residuals are told apart: |F| / |z| in units of force, and the step's, which is eps times that. A relaxation that
diverges is a result, not an error: its trace says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.equilibrium.field.api import Field

_RIDGE = 1e-6
"""Of the equations for the mixture, relative to their diagonal."""


@dataclass(frozen=True)
class Relaxed:
    """A state, and how it was come to.

    Attributes:
        z: (batch, time, width).
        residuals: |F| / |z| at the start and after each step, so the last is that of ``z``; those after a value that
            is not finite are not finite either.
        eps: size of a step.
    """

    z: Float[Tensor, "batch time width"]
    residuals: Float[Tensor, " steps"]
    eps: float

    @property
    def residual(self) -> Float[Tensor, ""]:
        """|F| / |z| of the state."""
        return self.residuals[-1]

    @property
    def diverged(self) -> bool:
        """Whether the state is not finite, or further from rest than any state can be that has settled."""
        return not bool(self.residual < 1.0)


def relax(
    field: Field,
    steps: int,
    eps: float,
    *,
    start: Float[Tensor, "batch time width"] | None = None,
    anderson: int = 0,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Relaxed:
    """Take ``steps`` of z <- z + eps F(z) from ``start`` (None: the injection), without a graph.

    Args:
        field: F; its own bound on steps holds as well.
        steps: how many.
        eps: size of a step.
        start: warm start.
        anderson: how many past states are mixed into the next; 0: none. Each token has its own mixture, made from its
            own past residuals, so that no state depends on a later token.
        observe: called with the number of each step and the state after it.
    """
    eps = min(eps, field.largest_step)
    with torch.no_grad():
        z = field.x if start is None else start
        mix = _Anderson(anderson) if anderson else None
        residuals = []
        for step in range(1, steps + 1):
            force = field(z)
            residuals.append(residual_of(force, z))
            moved = z + eps * force
            z = moved if mix is None else mix(moved, eps * force)
            if observe is not None:
                observe(step, z)
        residuals.append(residual_of(field(z), z))
    return Relaxed(z.detach(), torch.stack(residuals), eps)


def residual_of(force: Tensor, z: Tensor) -> Float[Tensor, ""]:
    """|F| / |z|."""
    ratio: Tensor = force.norm() / z.norm()
    return ratio


class _Anderson:
    """Anderson acceleration of a fixed-point iteration, type II, token by token (Walker & Ni 2011).

    Of the last ``depth`` steps the mixture whose residuals would sum to the least is taken.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._moved: list[Tensor] = []
        self._residuals: list[Tensor] = []

    def __call__(self, moved: Tensor, residual: Tensor) -> Tensor:
        """The next state, given where a plain step leads to and by how much it moves."""
        self._moved = [*self._moved[-self._depth + 1 :], moved] if self._depth > 1 else [moved]
        self._residuals = [*self._residuals[-self._depth + 1 :], residual] if self._depth > 1 else [residual]
        if len(self._moved) == 1:
            return moved
        rows = torch.stack(self._residuals, dim=-2)
        products = rows @ rows.transpose(-1, -2)
        number = products.shape[-1]
        scale = products.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
        ridge = (_RIDGE * scale + torch.finfo(rows.dtype).tiny) * torch.eye(
            number, dtype=rows.dtype, device=rows.device
        )
        ones = torch.ones(*products.shape[:-1], 1, dtype=rows.dtype, device=rows.device)
        shares = torch.linalg.solve_ex(products + ridge, ones).result
        shares = shares / shares.sum(dim=-2, keepdim=True)
        mixed: Tensor = shares.transpose(-1, -2) @ torch.stack(self._moved, dim=-2)
        return mixed.squeeze(-2)
