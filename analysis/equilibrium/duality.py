"""Do J v and J'v belong to one field, and does the field say the same twice?

What it is: two checks of what every correction relies on. First u'(J v) = (J'u)'v in float64, J v by central
differences of the field and J'u by its backward pass, so that a backward pass which is not that of the field, or a
field that draws random numbers, shows. Second the noise of the contrast that nudged estimators read off the field: the
difference of the forces at two states a nudge apart, in the precision of training against float64, as a share of it.
What it is not: the error of a nudge that is too strong, which is the same in both precisions and cancels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, Value, Verdict, answer, diagnostic
from analysis.equilibrium.looked import estimated, own_name, problem_of
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.linearised import Linearised
from trainables.training.seeding import make_generator

_MOST_ERROR = 1e-4
"""Of the identity, in float64: central differences leave far less."""
_MOST_NOISE, _HIGH_NOISE = 0.01, 0.1
"""Noise of the contrast as a share of it, where a warning begins and where the estimate is lost."""
_STEP = 1e-5
"""Of central differences, as a share of the state's norm."""
_HOLDS = ("aep_dyadic", "implicit", "bptt")
"""Estimators that take no difference of forces."""


@diagnostic("whether J v and J'v belong to one field, and its noise")
def duality(subject: Any) -> Finding:
    """Return a finding with values ``duality_error``, |u'(J v) - (J'u)'v| over |J'u| |v| in float64, and
    ``contrast_noise``, a share of the difference of forces at the configured nudge.
    """
    problem = problem_of(subject)
    weights = {name: weight.detach().double() for name, weight in problem.weights.items()}
    precise = Problem(problem.config, weights, torch.cat([problem.ids, problem.targets[:, -1:]], dim=1))
    z = problem.free.z.double()
    adjoint = estimated(problem, estimator="implicit").adjoint
    assert adjoint is not None
    contrast = _nudge(problem) * adjoint
    return judge(own_name(subject.config), _HOLDS, identity_error(precise, z), noise(problem, precise, contrast))


def identity_error(precise: Problem, z: Tensor) -> float:
    """How far u'(J v) is from (J'u)'v for random u and v."""
    generator = make_generator(0, "duality")
    u, v = (torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z) for _ in range(2))
    size = _STEP * z.norm() / v.norm()
    with torch.no_grad():
        forward = (precise.field(z + size * v) - precise.field(z - size * v)) / (2 * size)
    backward = Linearised(precise.field, z).transposed(u)
    return float(((u * forward).sum() - (backward * v).sum()).abs() / (backward.norm() * v.norm()))


def noise(problem: Problem, precise: Problem, contrast: Tensor) -> float:
    """What rounding and random numbers add to the difference of the forces at z + contrast and z - contrast."""
    z = problem.free.z
    up, down = z + contrast, z - contrast
    with torch.no_grad():
        found = (problem.field(up) - problem.field(down)).double()
        true = precise.field(up.double()) - precise.field(down.double())
    return float((found - true).norm() / true.norm())


def judge(name: str, holds: tuple[str, ...], error: float, share: float) -> Finding:
    """The finding on the error of the identity and the noise of the contrast; ``holds``: whom the noise spares."""
    values: dict[str, Value] = {"duality_error": error, "contrast_noise": share}
    threshold = {"duality_error": _MOST_ERROR, "contrast_noise": _MOST_NOISE}
    verdict: Verdict
    if not (math.isfinite(error) and math.isfinite(share)):
        return answer("no_evidence", "Forces or products are not finite.", values)
    if error > _MOST_ERROR:
        verdict = "fail"
        said = (
            f"u'(J v) and (J'u)'v differ by {error:.2g} in float64: J'v is not the transpose of what the field does, "
            "or the field draws random numbers"
        )
    elif share > _MOST_NOISE:
        spared = name in holds
        verdict = "fail" if share > _HIGH_NOISE and not spared else "warn"
        whose = f"{name} takes no such difference" if spared else "the nudge is too weak for it"
        said = f"of the difference of forces at two nudged states {share:.1%} is noise: {whose}"
        said = said[0].upper() + said[1:]
    else:
        verdict, said = (
            "pass",
            f"J v and J'v belong to one field (error {error:.1g}), and {share:.1g} of the contrast is noise",
        )
    return answer(verdict, f"{said}.", values, threshold)


def _nudge(problem: Problem) -> float:
    config = problem.config
    return config.holo_radius if config.estimator == "holo" else config.beta
