"""Reverse mode through the last steps of the free phase; memory grows with their number."""

from __future__ import annotations

import torch

from trainables.equilibrium.estimators.api import Estimate, Problem, gradients_of
from trainables.equilibrium.field import make_field
from trainables.equilibrium.readout import Readout
from trainables.equilibrium.relaxation import Relaxed, relax, residual_of


def bptt(problem: Problem) -> Estimate:
    """The gradient through the last ``bptt_steps`` of ``t1`` steps; earlier ones are constants."""
    config = problem.config
    before = relax(problem.field, config.t1 - config.bptt_steps, config.eps, anderson=config.anderson)
    residuals = [before.residuals[:-1]]
    with torch.enable_grad():
        field = make_field(config, problem.weights, problem.ids)
        z = before.z if config.t1 > config.bptt_steps else field.x
        for _ in range(config.bptt_steps):
            force = field(z)
            residuals.append(residual_of(force.detach(), z.detach()).view(1))
            z = z + before.eps * force
        loss = Readout(config, problem.weights, problem.targets).loss(z)
        gradients = gradients_of(loss, problem.weights)
    z = z.detach()
    with torch.no_grad():
        residuals.append(residual_of(problem.field(z), z).view(1))
    return Estimate(loss.detach(), gradients, Relaxed(z, torch.cat(residuals), before.eps))
