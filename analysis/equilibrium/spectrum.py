"""Is the free state stable, and for how long still? An alarm that goes off before the residual shows anything.

What it is: the leading eigenvalues of the Jacobian at the free state by Arnoldi's method, sequence by sequence. The
state is stable while all real parts are negative, and relaxation by steps of eps comes to it while |1 + eps mu| < 1. In
training a complex pair tends to cross into the right half plane (a Hopf bifurcation) some time before relaxation stops
coming to rest within its steps. The residual of each eigenvalue's own equation says how well it is known.
What it is not: the whole spectrum. Eigenvalues at its edge converge first, and few are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from analysis.diagnose.api import Finding, NoEvidence, Plot, Series, Value, Verdict, answer, diagnostic
from analysis.equilibrium.looked import NOT_FINITE, problem_of
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.linearised import arnoldi
from trainables.training.seeding import make_generator

_KRYLOV = 48
_NEAR = 0.05
"""Real parts nearer to zero than so many times kappa are called near."""
_REAL = 1e-3
"""Imaginary part, over the modulus, up to which an eigenvalue is called real."""


@dataclass(frozen=True)
class Ritz:
    """An estimate of an eigenvalue, and the residual of its equation for a vector of length 1."""

    value: complex
    residual: float


@diagnostic("leading eigenvalues of the Jacobian at the free state")
def spectrum(subject: Any) -> Finding:
    """Return a finding with values ``abscissa``, the largest real part, and its ``imaginary`` part; ``uncertainty``,
    the residual of its equation; ``unstable_share`` of sequences; ``step_radius``, the largest |1 + eps mu|;
    ``largest_eps`` that still converges (0 for none); ``step_residual`` of the free phase.
    """
    problem = problem_of(subject)
    by_sequence = ritz(problem, _KRYLOV)
    free = problem.free
    return judge(by_sequence, subject.config.kappa, free.eps, float(free.eps * free.residual))


def ritz(problem: Problem, size: int) -> list[list[Ritz]]:
    """Ritz values of each sequence with residuals, from so many products with J'."""
    z = problem.free.z
    size = min(size, z[0].numel())
    start = torch.randn(z.shape, generator=make_generator(0, "spectrum"), dtype=torch.float64).to(z)
    _, matrix, _ = arnoldi(problem.linearised.transposed, start, size)
    matrix = matrix.cpu().double()
    if not bool(matrix.isfinite().all()):
        raise NoEvidence(NOT_FINITE)
    found = []
    for of_sequence in matrix:
        ends = (of_sequence.diagonal(-1) == 0.0).nonzero().flatten().tolist()
        inner = ends[0] + 1 if ends else size
        values, vectors = torch.linalg.eig(of_sequence[:inner, :inner])
        # What the last product leaves outside of the space, by the last entry of the eigenvector.
        left = float(of_sequence[inner, inner - 1]) * vectors[-1].abs()
        found.append([Ritz(complex(v), float(r)) for v, r in zip(values.tolist(), left, strict=True)])
    return found


def judge(by_sequence: Sequence[Sequence[Ritz]], kappa: float, eps: float, step_residual: float) -> Finding:
    """The finding on Ritz values by sequence under steps of ``eps``."""
    every = [one for some in by_sequence for one in some]
    first = max(every, key=lambda one: one.value.real)
    abscissa, turn = first.value.real, abs(first.value.imag)
    unstable = sum(any(one.value.real > 0.0 for one in some) for some in by_sequence) / len(by_sequence)
    radius = max(abs(1.0 + eps * one.value) for one in every)
    limit = min(max(-2.0 * one.value.real / abs(one.value) ** 2, 0.0) if one.value else 0.0 for one in every)
    values: dict[str, Value] = {
        "abscissa": abscissa,
        "imaginary": turn,
        "uncertainty": first.residual,
        "unstable_share": unstable,
        "step_radius": radius,
        "largest_eps": limit,
        "step_residual": step_residual,
    }
    kind = "a real eigenvalue" if turn <= _REAL * abs(first.value) else f"a pair with imaginary part {turn:.2f}"
    said = f"The leading eigenvalue has real part {abscissa:.3f} ({kind}, known to {first.residual:.1g})"
    verdict: Verdict
    if first.residual >= abs(abscissa):
        verdict, meaning = "warn", "on which side of zero it lies is open"
    elif abscissa > 0.0:
        shows = (
            "the residual shows it"
            if step_residual > 5e-3
            else f"the residual, {step_residual:.1g} a step, does not show it yet"
        )
        verdict, meaning = "fail", f"the free state of {unstable:.0%} of the sequences is unstable, and {shows}"
    elif radius > 1.0:
        verdict, meaning = (
            "fail",
            f"the state is stable, but steps of {eps:g} are too large: they may be {limit:.2g} at most",
        )
    elif abscissa > -_NEAR * kappa:
        verdict, meaning = "warn", "the state is stable, but not by much"
    else:
        verdict, meaning = "pass", f"the state is stable, and steps of {eps:g} come to it"
    return answer(verdict, f"{said}: {meaning}.", values, {"abscissa": 0.0, "step_radius": 1.0}, (_plot(every, eps),))


def _plot(every: Sequence[Ritz], eps: float) -> Plot:
    """Ritz values, and the circle |1 + eps mu| = 1 that steps allow."""
    angles = [2.0 * math.pi * k / 60 for k in range(61)]
    circle = Series(
        f"where steps of {eps:g} still converge",
        tuple((math.cos(a) - 1.0) / eps for a in angles),
        tuple(math.sin(a) / eps for a in angles),
    )
    points = Series("eigenvalues", tuple(one.value.real for one in every), tuple(one.value.imag for one in every))
    return Plot("Leading eigenvalues of the Jacobian", "real part", "imaginary part", "points", (points, circle))
