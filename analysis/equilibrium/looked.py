"""What diagnostics of `equilibrium` share: batches of sampled sequences, and gradients compared group by group.

The head's gradient needs no adjoint, is exact whatever the estimator, and hides failure. So a gradient is judged by its
body: all weights but the head's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import NoEvidence
from analysis.stats.interval import Interval
from trainables.equilibrium.config import EquilibriumConfig, EstimatorName, least_radius
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Estimate, Problem
from trainables.equilibrium.layout import HEAD, group_of
from trainables.equilibrium.probe import reference
from trainables.equilibrium.stability import Gradients

RIGHT = 0.95
"""Cosine with the exact gradient from which on an estimate is said to point the right way: within 18 degrees."""
BODY = "body"
"""The group of all weights but the head's."""
NOT_FINITE = "The free state of this model, or its loss, is not finite on sampled sequences."
_SOLVED = 0.05
"""Adjoint residual up to which the reference may be held against."""

Groups = dict[str, Tensor]
"""A gradient as one vector for each group of weights, the body first and without the head."""


def problems_of(subject: Any, number: int, sequences: int) -> list[Problem]:
    """So many batches of ``sequences`` sampled ones, each spread over the split, by the weights as trained.

    Raises `NoEvidence` where the split has too few sequences, or a free state is not finite.
    """
    rows = subject.sample.at_most(number * sequences).sequences
    if len(rows) < number * sequences:
        raise NoEvidence(
            f"The split has {len(rows)} sequences of this length: {number * sequences} are needed for {number} batches."
        )
    problems = [subject.task.problem(rows[first::number]) for first in range(number)]
    if not all(bool((p.free.z.isfinite() & p.pull.isfinite()).all()) for p in problems):
        raise NoEvidence(NOT_FINITE)
    return problems


def problem_of(subject: Any, sequences: int = 8) -> Problem:
    """One batch of up to ``sequences``."""
    (problem,) = problems_of(subject, 1, min(sequences, len(subject.sample.sequences)))
    return problem


def variant(problem: Problem, **fields: Any) -> Problem:
    """The same batch at the same free state under a config whose estimator has other fields."""
    other = copy.copy(problem)
    other.config = problem.config.model_copy(update=fields)
    return other


def own_name(config: EquilibriumConfig) -> str:
    """The name in reports of the estimator that a config ends training with: ``holo_4`` says its points."""
    return f"holo_{config.holo_points}" if config.estimator == "holo" else config.estimator


def contenders(config: EquilibriumConfig) -> dict[str, dict[str, Any]]:
    """Every estimator by its name in reports, as the fields that make it; what it shares with others is the config's.

    ``implicit`` is held to the config's own number of products, unlike the reference. Complex states cost several times
    as much as all the rest, so ``holo`` has 4 points, and 8 as well only where the model is trained by it.
    """
    fields: dict[str, dict[str, Any]] = {name: {"estimator": name} for name in ESTIMATORS if name != "holo"}
    fields["bptt"]["bptt_steps"] = min(config.bptt_steps, config.t1)
    for points in sorted({4, 8, config.holo_points} if config.estimator == "holo" else {4}):
        radius = max(config.holo_radius, least_radius(points))
        fields[f"holo_{points}"] = {"estimator": "holo", "holo_points": points, "holo_radius": radius}
    return fields


def estimated(problem: Problem, **fields: Any) -> Estimate:
    """The estimate of the config's own estimator, or of the one that ``fields`` make it."""
    other = variant(problem, **fields)
    name: EstimatorName = other.config.estimator
    return ESTIMATORS[name](other)


def exact(problem: Problem) -> Estimate:
    """The estimate by the adjoint equation; raises `NoEvidence` where that could not be solved."""
    found = reference(problem)
    assert found.evidence is not None
    rho = found.evidence.rho
    if not rho <= _SOLVED:
        raise NoEvidence(
            f"The adjoint equation was solved to a residual of {rho:.2g} only: there is nothing exact to compare with."
        )
    return found


def by_group(config: EquilibriumConfig, gradients: Gradients) -> Groups:
    """The gradient of each group as one vector, the body's first, of which the others are parts; without the head's."""
    groups = group_of(config)
    parts: dict[str, list[Tensor]] = {}
    for name, gradient in gradients.items():
        if groups[name] != HEAD:
            parts.setdefault(groups[name], []).append(gradient.detach().flatten())
    body = torch.cat([flat for some in parts.values() for flat in some])
    sizes = [sum(flat.numel() for flat in some) for some in parts.values()]
    return {BODY: body, **dict(zip(parts, torch.split(body, sizes), strict=True))}


def cosine(one: Tensor, other: Tensor) -> float:
    """Of two vectors; NaN where one is zero or not finite."""
    one, other = one.double(), other.double()
    return float(one @ other / (one.norm() * other.norm()))


def ranked(named: Mapping[str, Interval]) -> list[tuple[str, Interval]]:
    """By value, the highest first; what is not finite last."""
    return sorted(named.items(), key=lambda item: -item[1].value if item[1].value == item[1].value else float("inf"))
