"""The Jacobian J of the field at one state, as products with vectors; and linear algebra on nothing else.

All vectors have the shape of a state. The Jacobian has a block for each sequence, so equations are solved and
eigenvalues found sequence by sequence, all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from trainables.equilibrium.field.api import Field, State

Vector = Float[Tensor, "batch time width"]
_NO_DIRECTION = 1e-30


class Linearised:
    """J = dF/dz at ``z``; the graph of one evaluation of the field is kept, whatever is done with it.

    Attributes:
        value: F(z).
    """

    def __init__(self, field: Field, z: Vector) -> None:
        with torch.enable_grad():
            self._z = z.detach().requires_grad_()
            self._value = field(self._z)
        self.value = self._value.detach()
        self._dual: Tensor | None = None
        self._transposed_dual: Tensor | None = None

    def transposed(self, v: State) -> State:
        """J'v, one backward pass for each real part."""
        return _by_parts(self._transposed, v)

    def times(self, v: State) -> State:
        """J v: the gradient of u'J v in u."""
        return _by_parts(self._times, v)

    def _transposed(self, v: Vector) -> Vector:
        (product,) = torch.autograd.grad(self._value, self._z, v, retain_graph=True)
        return product

    def _times(self, v: Vector) -> Vector:
        if self._transposed_dual is None:
            with torch.enable_grad():
                self._dual = torch.zeros_like(self.value, requires_grad=True)
                (self._transposed_dual,) = torch.autograd.grad(self._value, self._z, self._dual, create_graph=True)
        (product,) = torch.autograd.grad(self._transposed_dual, self._dual, v, retain_graph=True)  # type: ignore[arg-type]
        return product


def _by_parts(apply: Callable[[Vector], Vector], v: State) -> State:
    """A real linear map of one state, applied to each of a stack of states, real or complex."""
    if v.is_complex():
        return torch.complex(_by_parts(apply, v.real), _by_parts(apply, v.imag))
    if v.ndim > 3:
        return torch.stack([_by_parts(apply, part) for part in v])
    return apply(v)


def arnoldi(
    operator: Callable[[Vector], Vector], start: Vector, size: int
) -> tuple[Float[Tensor, "batch size1 inner"], Float[Tensor, "batch size1 size"], Float[Tensor, " batch"]]:
    """A basis of the Krylov space of each sequence, the operator in that basis, and the norm of ``start``.

    Orthogonalised twice, which is enough. A sequence whose space is exhausted gets zero vectors.
    """
    v = start.flatten(1)
    norm = v.norm(dim=1)
    basis = v.new_zeros(v.shape[0], size + 1, v.shape[1])
    matrix = v.new_zeros(v.shape[0], size + 1, size)
    basis[:, 0] = _unit(v, norm)
    for k in range(size):
        w = operator(basis[:, k].view_as(start)).flatten(1)
        known = basis[:, : k + 1]
        before = w.norm(dim=1)
        for _ in range(2):
            part = torch.bmm(known, w.unsqueeze(2))
            w = w - torch.bmm(known.transpose(1, 2), part).squeeze(2)
            matrix[:, : k + 1, k] += part.squeeze(2)
        length = w.norm(dim=1)
        # What is left of an exhausted space is rounding.
        length = torch.where(length > 10 * torch.finfo(v.dtype).eps * before, length, torch.zeros_like(length))
        matrix[:, k + 1, k] = length
        basis[:, k + 1] = _unit(w, length)
    return basis, matrix, norm


def _unit(v: Float[Tensor, "batch inner"], norm: Float[Tensor, " batch"]) -> Float[Tensor, "batch inner"]:
    return torch.where(norm > _NO_DIRECTION, 1.0 / norm.clamp(min=_NO_DIRECTION), 0.0).unsqueeze(1) * v


def gmres(
    operator: Callable[[Vector], Vector], b: Vector, *, restart: int, cycles: int, tolerance: float
) -> tuple[Vector, float, int]:
    """Solve ``operator(x) = b``; returns x, |operator(x) - b| / |b| and the products taken (Saad & Schultz 1986).

    Each cycle takes ``restart`` products; it ends at ``tolerance``, after ``cycles``, or where nothing is finite.
    """
    x = torch.zeros_like(b)
    residual, scale = b, b.norm().clamp(min=_NO_DIRECTION)
    relative, products = 1.0, 0
    for _ in range(cycles):
        basis, matrix, norm = arnoldi(operator, residual, restart)
        if not bool(matrix.isfinite().all()):
            return torch.full_like(b, torch.nan), float("nan"), products + restart
        first = matrix.new_zeros(matrix.shape[0], restart + 1, 1)
        first[:, 0, 0] = norm
        shares = torch.linalg.pinv(matrix) @ first
        x = x + torch.bmm(basis[:, :restart].transpose(1, 2), shares).view_as(b)
        residual = b - operator(x)
        products += restart + 1
        relative = float(residual.norm() / scale)
        if relative <= tolerance:
            break
    return x, relative, products


def eigenvalues(operator: Callable[[Vector], Vector], start: Vector, size: int) -> Complex[Tensor, " values"]:
    """Ritz values of all sequences from ``size`` products; those on the edge of a spectrum converge first.

    One NaN where a product is not finite.
    """
    _, matrix, _ = arnoldi(operator, start, size)
    matrix = matrix.cpu().double()
    if not bool(matrix.isfinite().all()):
        return torch.full((1,), torch.nan, dtype=torch.complex128)
    found = []
    for of_sequence in matrix:
        # An exhausted space has no more eigenvalues than dimensions.
        ends = (of_sequence.diagonal(-1) == 0.0).nonzero().flatten().tolist()
        dimensions = ends[0] + 1 if ends else size
        found.append(torch.linalg.eigvals(of_sequence[:dimensions, :dimensions]))
    return torch.cat(found)
