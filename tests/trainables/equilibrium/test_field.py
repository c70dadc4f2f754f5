"""Laws of the field in every mode: causal, analytic, contractive where it says so; and its Jacobian by products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.equilibrium.configs import MODES, error, problem, small
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.field.monotone import MonotoneField, matrix_of
from trainables.equilibrium.linearised import arnoldi, eigenvalues, gmres
from trainables.equilibrium.relaxation import relax


def of_mode(mode: str, **fields: Any) -> Problem:
    return problem(small(**{**MODES[mode], "residual_init": 1.0, **fields}))


def jacobian(of: Problem, z: Tensor) -> Tensor:
    """The whole Jacobian of the first sequence."""
    n = z[0].numel()
    field = of.field
    whole = torch.autograd.functional.jacobian(lambda part: field(torch.cat([part, z[1:]]))[0], z[:1])
    assert isinstance(whole, Tensor)
    return whole.reshape(n, n)


@pytest.mark.parametrize("mode", MODES)
def test_no_force_depends_on_a_later_token(mode: str) -> None:
    of = of_mode(mode)
    z = torch.randn_like(of.field.x)
    t, c = z.shape[1:]
    blocks = jacobian(of, z).view(t, c, t, c).abs().amax(dim=(1, 3))
    assert not blocks.triu(1).any()
    assert blocks.diagonal().all()
    assert blocks.tril(-1)[1:].any(dim=1).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("anderson", [0, 5])
def test_no_state_depends_on_a_later_token(mode: str, anderson: int) -> None:
    of = of_mode(mode, anderson=anderson, t1=7)
    rows = torch.cat([of.ids, of.targets[:, -1:]], dim=1)
    changed = rows.clone()
    changed[:, 4] = (changed[:, 4] + 1) % of.config.vocab_size
    one, other = (Problem(of.config, of.weights, tokens).free.z for tokens in (rows, changed))
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.equal(one[:, 4], other[:, 4])


def test_the_textbook_energy_of_attention_leaks_the_future_and_ours_does_not() -> None:
    of = of_mode("energy")
    w = {name: weight.detach() for name, weight in of.weights.items()}
    heads, dim = of.config.n_heads, of.config.width // of.config.n_heads

    def energy(g: Tensor) -> Tensor:
        """- sum_t logsumexp_{j<t} (q_t k_j), summed over heads, with the null key; Hoover et al. 2023, equation 2."""
        q, k = ((g @ w[name].T).view(-1, heads, dim).transpose(0, 1) for name in ("wq", "wk"))
        scores = q @ torch.cat([w["null_key"].unsqueeze(1), k], dim=1).transpose(1, 2) / dim**0.5
        seen = torch.ones(g.shape[0], g.shape[0] + 1, dtype=torch.bool).tril()
        return -(dim**0.5) * scores.masked_fill(~seen, -torch.inf).logsumexp(dim=-1).sum()

    g = torch.randn(of.config.context, of.config.width, dtype=torch.float64, requires_grad=True)
    textbook = torch.autograd.functional.jacobian(lambda at: torch.func.grad(energy)(at), g)
    leak = textbook.abs().amax(dim=(1, 3)).triu(1).max()  # type: ignore[union-attr]
    assert leak > 1e-2
    ours = of.field._attention(g.unsqueeze(0))[0]  # type: ignore[attr-defined]
    # What is left without the second term, the pull on keys, is the gradient in the queries alone.
    q_only = torch.autograd.grad(_energy_of_queries(w, g, heads, dim), g)[0]
    assert error(ours, -q_only) < 1e-12


def _energy_of_queries(w: dict[str, Tensor], g: Tensor, heads: int, dim: int) -> Tensor:
    """The same energy with keys that are constants."""
    fixed = g.detach()
    q = (g @ w["wq"].T).view(-1, heads, dim).transpose(0, 1)
    k = (fixed @ w["wk"].T).view(-1, heads, dim).transpose(0, 1)
    scores = q @ torch.cat([w["null_key"].unsqueeze(1), k], dim=1).transpose(1, 2) / dim**0.5
    seen = torch.ones(g.shape[0], g.shape[0] + 1, dtype=torch.bool).tril()
    return -(dim**0.5) * scores.masked_fill(~seen, -torch.inf).logsumexp(dim=-1).sum()


@pytest.mark.parametrize("mode", MODES)
def test_the_field_and_the_pull_are_analytic(mode: str) -> None:
    of = of_mode(mode)
    z, v = torch.randn_like(of.field.x), torch.randn_like(of.field.x)
    for function in (of.field, of.readout.force):
        on_axis = function(z.to(torch.complex128))
        assert error(on_axis.real, function(z)) < 1e-12
        assert float(on_axis.imag.abs().max()) == 0.0
        at = torch.complex(z, 0.3 * torch.randn_like(z))
        h = 1e-6
        along, across = ((function(at + step * v) - function(at - step * v)) / (2 * h) for step in (h, 1j * h))
        # Cauchy and Riemann.
        assert float((across - 1j * along).abs().max()) < 1e-7 * float(along.abs().max())


@pytest.mark.parametrize("normed", [True, False])
def test_the_pull_is_the_gradient_of_the_summed_loss(normed: bool) -> None:
    of = of_mode("tied", readout_norm=normed)
    z = torch.randn_like(of.field.x).requires_grad_()
    (gradient,) = torch.autograd.grad(of.readout.loss(z) * of.targets.numel(), z)
    assert error(of.readout.force(z.detach()), gradient) < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_products_with_the_jacobian_are_those_of_the_whole_one(mode: str) -> None:
    of = of_mode(mode)
    z, v = of.free.z, torch.complex(torch.randn_like(of.free.z), torch.randn_like(of.free.z))
    whole = jacobian(of, z)
    stacked = torch.stack([v, 2 * v])
    for product, matrix in ((of.linearised.times, whole), (of.linearised.transposed, whole.T)):
        expected = (matrix.to(v.dtype) @ v[0].flatten()).view_as(v[0])
        assert error(product(v)[0], expected) < 1e-12
        assert error(product(stacked)[1, 0], 2 * expected) < 1e-12


def test_krylov_methods_agree_with_the_whole_jacobian() -> None:
    of = of_mode("softmax")
    whole = jacobian(of, of.free.z)
    n = whole.shape[0]
    found, residual, _ = gmres(of.linearised.transposed, of.pull, restart=n, cycles=2, tolerance=1e-12)
    assert residual < 1e-10
    assert error(found[0].flatten(), torch.linalg.solve(whole.T, of.pull[0].flatten())) < 1e-9
    largest = max(float(torch.linalg.eigvals(jacobian(one, one.free.z)).real.max()) for one in (of, swapped(of)))
    for size, close in ((n, 1e-6), (24, 1e-2)):
        ritz = eigenvalues(of.linearised.times, torch.randn_like(of.free.z), size)
        assert float(ritz.real.max()) == pytest.approx(largest, rel=close)


def swapped(of: Problem) -> Problem:
    """The same with the sequences in the opposite order."""
    return Problem(of.config, of.weights, torch.cat([of.ids, of.targets[:, -1:]], dim=1).flip(0))


def test_an_exhausted_krylov_space_gives_zeros_and_the_solution() -> None:
    b = torch.zeros(2, 3, 4, dtype=torch.float64)
    b[0, 0, 0] = 2.0  # the second sequence has nothing to be solved
    basis, matrix, norm = arnoldi(lambda v: -v, b, 3)
    assert norm.tolist() == [2.0, 0.0]
    assert not basis[:, 1:].any()
    assert matrix[0, 0, 0] == -1.0
    found, residual, _ = gmres(lambda v: -v, b, restart=3, cycles=1, tolerance=1e-12)
    assert torch.equal(found, -b)
    assert residual == 0.0
    assert eigenvalues(lambda v: -v, b, 3).real.tolist() == [-1.0, 0.0]  # of no space at all: one zero


def test_a_system_that_is_not_finite_is_told() -> None:
    b = torch.ones(1, 2, 2)
    found, residual, _ = gmres(lambda v: v * torch.nan, b, restart=2, cycles=1, tolerance=1e-3)
    assert found.isnan().all()
    assert residual != residual
    assert eigenvalues(lambda v: v * torch.nan, b, 2).isnan().all()


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_mono_is_monotone_and_its_spectrum_is_left_of_the_margin(margin: float) -> None:
    of = of_mode("mono", margin=margin, kappa=2.0)
    weights = {name: 5 * weight.detach() for name, weight in of.weights.items()}
    matrix = matrix_of(of.config, weights)
    symmetric = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert float(symmetric.max()) <= 1.0 - margin + 1e-12
    large = Problem(of.config, weights, torch.cat([of.ids, of.targets[:, -1:]], dim=1))
    for seed in range(5):
        torch.manual_seed(seed)
        values = torch.linalg.eigvals(jacobian(large, torch.randn_like(of.field.x)))
        assert float(values.real.max()) <= -2.0 * margin + 1e-9


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_nemon_contracts_in_the_maximum_norm_at_its_largest_step(margin: float) -> None:
    of = of_mode("nemon", margin=margin, kappa=2.0)
    weights = {name: 5 * weight.detach() for name, weight in of.weights.items()}
    large = Problem(of.config, weights, torch.cat([of.ids, of.targets[:, -1:]], dim=1))
    field = large.field
    assert isinstance(field, MonotoneField)
    step = field.largest_step
    assert 0.0 < step < 0.5
    for seed in range(20):
        torch.manual_seed(seed)
        one = torch.randn_like(field.x)
        other = one.clone()
        other[:, -1] += 0.1 * torch.randn_like(one[:, -1])  # the last token, whose past is the same
        after = (one + step * field(one)) - (other + step * field(other))
        most = (1.0 - 2.0 * step * margin) * (one - other).abs().max()
        assert float(after[:, -1].abs().max()) <= float(most) + 1e-12
    # Without its own bound so large a step would not settle.
    assert float(relax(field, 400, 0.9).residual) < 1e-6
