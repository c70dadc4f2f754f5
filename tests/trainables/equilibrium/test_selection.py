"""The nudged phase: which estimate is taken, when it ends, and why; and how much memory each estimator keeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.saved import most_saved
from tests.trainables.equilibrium.configs import error, problem, small
from trainables.equilibrium.config import EquilibriumConfig, EstimatorName
from trainables.equilibrium.estimators import ESTIMATORS
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.estimators.nudged import nudge
from trainables.equilibrium.model import EquilibriumModel


class Scripted:
    """Dynamics whose adjoint residual follows a script, a value a step; the adjoint says which step it is of."""

    def __init__(self, like: Tensor, script: Iterator[float]) -> None:
        self._like, self._script, self._step, self._rho = like, script, 0, 1.0

    def advance(self) -> None:
        self._step += 1
        self._rho = next(self._script)

    def adjoint(self) -> Tensor:
        return torch.full_like(self._like, float(self._step))

    def residual(self, adjoint: Tensor) -> Tensor:
        return torch.tensor(self._rho)

    def states(self) -> Tensor:
        return torch.stack([self._like, self._like])


def taken(script: list[float], **fields: Any) -> tuple[int, int, str, float]:
    of = problem(small(t1=1, **{"t2": 100, "select": True, "select_every": 2, **fields}))
    estimate = nudge(of, Scripted(of.free.z, itertools.chain(script, itertools.repeat(script[-1]))))
    assert estimate.evidence is not None
    assert estimate.adjoint is not None
    seen = estimate.evidence
    assert float(estimate.adjoint[0, 0, 0]) == seen.selected
    return seen.selected, seen.steps, seen.stopped, seen.rho


@pytest.mark.parametrize(
    ("script", "fields", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.1, 0.5, 0.5], {}, (4, 16, "patience", 0.1)),
        ([0.9, 0.8, 0.7, 0.1, 0.5, 0.5], {"t2": 9}, (4, 9, "end", 0.1)),
        ([0.9, 0.8, 0.7, 0.1, 0.5, 2e3], {}, (4, 6, "diverged", 0.1)),
        ([0.9, 0.8, 0.7, 0.1, 0.5, float("nan")], {}, (4, 6, "diverged", 0.1)),
        ([0.9, 0.8, 0.7, 0.1], {"t2_tol": 0.2}, (4, 4, "tolerance", 0.1)),
        ([0.9, 0.1, 0.7, 0.5, 0.4], {"select": False, "t2": 5}, (5, 5, "end", 0.4)),
        ([0.9, 0.8, 0.7, 0.1], {"select": False, "t2_tol": 0.2}, (4, 4, "tolerance", 0.1)),
    ],
)
def test_the_best_estimate_is_taken_and_the_phase_ends_for_a_reason(
    script: list[float], fields: dict[str, Any], expected: tuple[int, int, str, float]
) -> None:
    assert taken(script, **fields) == pytest.approx(expected)


def test_a_phase_that_blows_up_at_once_is_told_and_returned() -> None:
    selected, steps, stopped, rho = taken([float("inf")])
    assert (selected, steps, stopped) == (2, 2, "diverged")
    assert rho == float("inf")


def test_selection_saves_an_estimate_from_a_field_that_blows_up_under_the_nudge() -> None:
    # Frozen, far from normal and nudged hard.
    fields = {"residual_init": 2.0, "t1": 30, "t2": 400, "beta": 1.0, "context": 12, "width": 16}
    of = problem(small(**fields, select=True))
    found = ESTIMATORS["aep_frozen"](of)
    assert found.evidence is not None
    assert found.evidence.stopped in ("diverged", "patience")
    assert found.evidence.selected < found.evidence.steps
    assert all(bool(gradient.isfinite().all()) for gradient in found.gradients.values())


def test_the_adjoint_residual_is_the_residual_of_the_adjoint() -> None:
    at_rest = problem(small(t1=300, t2=20, beta=1e-4))
    for name in ("ep", "aep_frozen", "aep_tracking", "aep_dyadic"):
        found = ESTIMATORS[name](at_rest)
        assert found.evidence is not None
        assert found.adjoint is not None
        assert found.evidence.rho == pytest.approx(float(at_rest.adjoint_residual(found.adjoint)), rel=1e-3), name


def test_a_tighter_tolerance_takes_more_steps_and_is_nearer() -> None:
    errors, steps = [], []
    for tolerance in (0.1, 0.01, 0.001):
        of = problem(small(t1=200, t2=200, t2_tol=tolerance, select=True, select_every=1, beta=0.01))
        found = ESTIMATORS["aep_dyadic"](of)
        assert found.evidence is not None
        assert found.adjoint is not None
        assert found.evidence.rho <= tolerance
        steps.append(found.evidence.steps)
        implicit = ESTIMATORS["implicit"](of).adjoint
        assert implicit is not None
        errors.append(error(found.adjoint, implicit))
    assert steps == sorted(set(steps))
    assert errors == sorted(errors, reverse=True)


def kept_by(config: EquilibriumConfig, name: EstimatorName) -> int:
    """Bytes that autograd keeps for backward passes at the most, at one time, while an estimator works."""
    torch.manual_seed(0)
    model = EquilibriumModel(config)
    rows = torch.randint(config.vocab_size, (2, config.context + 1))
    return most_saved(lambda: ESTIMATORS[name](Problem(config, model.weights, rows)))


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "bptt"])
def test_what_is_kept_does_not_grow_with_either_phase(name: EstimatorName) -> None:
    short, long = (kept_by(small(t1=t1, t2=t2), name) for t1, t2 in ((5, 5), (40, 20)))
    assert long == short


def test_what_reverse_mode_keeps_grows_with_its_steps() -> None:
    few, many = (kept_by(small(t1=80, bptt_steps=steps), "bptt") for steps in (2, 40))
    assert many > 15 * few
    tracking = kept_by(small(t1=80, t2=20), "aep_dyadic")
    assert many > 15 * tracking
