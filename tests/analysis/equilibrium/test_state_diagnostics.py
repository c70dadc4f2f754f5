"""Diagnostics of states and of the Jacobian of `equilibrium`: known answers, and planted faults."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from analysis.diagnose.api import Finding
from analysis.diagnose.registry import diagnose
from analysis.diagnose.subject import Subject
from analysis.equilibrium import hijack, nudged_state, relaxation, spectrum
from analysis.equilibrium.looked import BODY
from analysis.equilibrium.spectrum import Ritz
from tests.analysis.equilibrium.conftest import MakeSubject
from tests.analysis.values import number
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.linearised import Linearised


def ask(subject: Subject, name: str) -> Finding:
    (finding,) = diagnose(subject, [name])
    return finding


def linear(matrix: Tensor) -> Problem:
    """A problem at the origin whose Jacobian has ``matrix`` on each of two sequences of one token."""
    z = torch.zeros(2, 1, len(matrix)).double()
    jacobian = Linearised(lambda state: state @ matrix.T, z)  # type: ignore[arg-type]
    return SimpleNamespace(free=SimpleNamespace(z=z), linearised=jacobian)  # type: ignore[return-value]


def test_leading_eigenvalues_are_those_of_a_known_matrix() -> None:
    torch.manual_seed(0)
    known = torch.tensor([[-0.2, 1.5, 0.0], [-1.5, -0.2, 0.0], [0.0, 0.0, -3.0]], dtype=torch.float64)
    basis = torch.randn(3, 3).double()
    for of_sequence in spectrum.ritz(linear(basis @ known @ torch.linalg.inv(basis)), 3):
        found = sorted((one.value for one in of_sequence), key=lambda value: (value.real, value.imag))
        assert found == pytest.approx([-3.0, -0.2 - 1.5j, -0.2 + 1.5j], abs=1e-9)
        assert max(one.residual for one in of_sequence) < 1e-9


def test_a_pair_that_has_crossed_is_an_alarm_before_the_residual_shows_it() -> None:
    # The pair of the notes, at a state that is still at rest.
    hopf = spectrum.judge(
        [[Ritz(0.26 + 1.37j, 1e-6), Ritz(0.26 - 1.37j, 1e-6)], [Ritz(-0.5 + 0j, 1e-6)]], 2.0, 0.1, 1e-6
    )
    assert hopf.verdict == "fail"
    assert "a pair with imaginary part 1.37" in hopf.summary
    assert "50% of the sequences is unstable" in hopf.summary
    assert "does not show it yet" in hopf.summary
    assert number(hopf, "largest_eps") == 0.0
    shown = spectrum.judge([[Ritz(0.26 + 1.37j, 1e-6)]], 2.0, 0.1, 0.1)
    assert shown.summary.endswith("and the residual shows it.")


@pytest.mark.parametrize(
    ("value", "residual", "eps", "verdict", "words"),
    [
        (-1.0 + 0.0j, 1e-6, 0.1, "pass", "a real eigenvalue"),
        (-0.024 + 1.3j, 1e-6, 0.01, "warn", "stable, but not by much"),
        (-0.5 + 3.0j, 1e-6, 0.25, "fail", "steps of 0.25 are too large: they may be 0.11 at most"),
        (-0.5 + 0.0j, 0.6, 0.1, "warn", "on which side of zero it lies is open"),
    ],
)
def test_what_an_eigenvalue_means(value: complex, residual: float, eps: float, verdict: str, words: str) -> None:
    found = spectrum.judge([[Ritz(value, residual)]], 2.0, eps, 1e-6)
    assert (found.verdict, words in found.summary) == (verdict, True)
    assert number(found, "step_radius") == pytest.approx(abs(1.0 + eps * value))


def test_the_largest_step_is_where_the_circle_is_met() -> None:
    value = -0.5 + 3.0j
    limit = number(spectrum.judge([[Ritz(value, 0.0)]], 2.0, 0.25, 1e-6), "largest_eps")
    assert abs(1.0 + limit * value) == pytest.approx(1.0)


def test_a_trained_field_that_is_pushed_over_is_unstable(make_subject: MakeSubject) -> None:
    assert ask(make_subject(), "spectrum").verdict == "pass"
    subject = make_subject(mode="softmax")
    with torch.no_grad():
        for name in ("wo", "pj"):
            subject.task.model.get_parameter(name).mul_(60.0)
    pushed = ask(subject, "spectrum")
    assert pushed.verdict == "fail"
    assert number(pushed, "abscissa") > 0.0


def test_a_free_phase_that_is_too_short_is_told(make_subject: MakeSubject) -> None:
    settled = ask(make_subject(), "relaxation")
    assert settled.verdict == "pass"
    assert number(settled, "rate") < 1.0
    assert math.isfinite(number(settled, "steps_own"))
    short = ask(make_subject(t1=3), "relaxation")
    assert short.verdict in ("warn", "fail")
    assert "it has not quite come to rest" in short.summary or "does not come to rest" in short.summary


def test_steps_that_are_too_large_never_settle(make_subject: MakeSubject) -> None:
    # kappa = 1 lets steps below 2 through; the field's own matrix does not.
    large = ask(make_subject(eps=0.7), "relaxation")
    assert large.verdict == "fail"
    assert math.isnan(number(large, "steps_own"))
    assert math.isfinite(number(large, "steps_half_eps"))


def test_steps_are_counted_to_where_the_residual_stays_low() -> None:
    assert relaxation.steps_to([1.0, 1e-4, 0.1, 1e-4, 1e-5], 1e-3) == 3.0
    assert relaxation.steps_to([1e-4], 1e-3) == 0.0
    assert math.isnan(relaxation.steps_to([1.0, 1e-4, math.nan], 1e-3))
    assert relaxation.rate([0.9**n for n in range(41)], 40) == pytest.approx(0.9)


TAKEN = {"moved": 0.01, "drift": 0.0, "adjoint_ratio": 1.0, "rho": 0.01, "at": 20.0}


@pytest.mark.parametrize(
    ("changed", "at_end", "verdict", "words"),
    [
        ({}, 1.0, "pass", "settle, with a residual of 0.010 after 20 steps"),
        ({"moved": 0.2}, 1.0, "warn", "which is no small nudge"),
        ({"drift": 0.009}, 1.0, "warn", "the free state was not at rest"),
        ({}, 500.0, "warn", "without selection the contrast would grow to 500 times the adjoint"),
        ({"rho": 0.8}, 1.0, "fail", "is left with a residual of 0.80"),
        ({"adjoint_ratio": 4133.0}, 4133.0, "fail", "4.13e+03 times as long as the exact adjoint"),
        ({"rho": math.nan, "adjoint_ratio": math.nan}, math.nan, "fail", "nan"),
    ],
)
def test_what_states_under_the_nudge_say(changed: dict[str, float], at_end: float, verdict: str, words: str) -> None:
    trace = [(step, {**TAKEN, "adjoint_ratio": at_end}) for step in (10, 20)]
    found = nudged_state.judge("aep_frozen", {**TAKEN, **changed}, trace)
    assert (found.verdict, words in found.summary) == (verdict, True), found.summary


def test_a_strong_nudge_moves_the_state_and_a_weak_one_does_not(make_subject: MakeSubject) -> None:
    weak, strong = (ask(make_subject(beta=beta), "nudged_state") for beta in (0.001, 0.5))
    assert weak.verdict == "pass"
    assert number(weak, "adjoint_ratio") == pytest.approx(1.0, abs=0.05)
    assert strong.verdict != "pass"
    assert number(strong, "moved") > 0.05 > number(weak, "moved")


def test_a_phase_without_a_check_is_told_by_its_residual(make_subject: MakeSubject) -> None:
    short = ask(make_subject(t2=2, select=False, t2_tol=None), "nudged_state")
    assert short.verdict == "fail"
    assert "the adjoint equation is left with a residual" in short.summary


def gradients(**sizes: float) -> dict[str, Tensor]:
    """Vectors of one direction and of given lengths by group, and the body of them."""
    groups = {name: size * torch.ones(1).double() for name, size in sizes.items()}
    return {BODY: torch.cat(list(groups.values())), **groups}


def test_a_penalty_without_a_cap_takes_over_and_one_with_a_cap_does_not() -> None:
    loss, penalty = gradients(wq=3.0, ln=4.0), gradients(wq=-4.0, ln=3.0)
    free = hijack.judge(loss, penalty, 16.0, None)
    assert free.verdict == "fail"
    assert number(free, "ratio") == pytest.approx(16.0)
    assert number(free, "cosine") == pytest.approx(0.0, abs=1e-12)
    assert number(free, "loss_cosine") == pytest.approx(1.0 / (1.0 + 16.0**2) ** 0.5)
    assert number(free, "jr_of_equals") == pytest.approx(1.0)
    capped = hijack.judge(loss, penalty, 16.0, 0.5)
    assert capped.verdict == "pass"
    assert number(capped, "ratio") == pytest.approx(0.5)
    assert number(capped, "ratio_without_cap") == pytest.approx(16.0)
    assert number(capped, "ratio_of_wq") == pytest.approx(0.5 * 4.0 / 3.0)
    assert "without the cap it would be 16 times" in capped.summary


def test_a_group_that_the_penalty_drives_alone_is_named_under_a_cap() -> None:
    found = hijack.judge(gradients(wq=100.0, ln=0.1), gradients(wq=10.0, ln=7.0), 16.0, 0.5)
    assert found.verdict == "warn"
    assert "in ln the penalty is" in found.summary
    assert number(found, "ratio_of_ln") > 3.0 > number(found, "ratio")


def test_the_largest_weight_that_the_config_allows_is_judged(make_subject: MakeSubject) -> None:
    controller: dict[str, Any] = {"jr_mode": "controller", "jr": 0.1, "jr_max": 1000.0}
    free = ask(make_subject(**controller, jr_cap=None), "hijack")
    assert free.verdict == "fail"
    held = ask(make_subject(**controller), "hijack")
    assert number(held, "ratio") == pytest.approx(0.5)
    assert number(held, "ratio_without_cap") == pytest.approx(number(free, "ratio"))
    assert ask(make_subject(jr_mode="off"), "hijack").verdict == "no_evidence"


@pytest.mark.parametrize("estimator", ["bptt", "implicit"])
def test_what_takes_no_nudge_is_not_asked_about_it(make_subject: MakeSubject, estimator: str) -> None:
    subject = make_subject(estimator=estimator, bptt_steps=20)
    found = diagnose(subject, ["nudge_sweep", "nudged_state"])
    assert [one.verdict for one in found] == ["no_evidence", "no_evidence"]


def test_weights_of_nan_and_short_splits_give_no_evidence(make_subject: MakeSubject) -> None:
    subject = make_subject()
    with torch.no_grad():
        subject.task.model.get_parameter("tokens").fill_(math.nan)
    assert {one.verdict for one in diagnose(subject)} == {"no_evidence"}
    few = make_subject()
    short = Subject("x", few.family, few.config, 3, few.task, few.sample.at_most(3), few.data_dir)
    (found,) = diagnose(short, ["ablation"])
    assert (found.verdict, "has 3 sequences" in found.summary) == ("no_evidence", True)
