"""Diagnostics of the gradient of `equilibrium`: a sound estimator passes, and each planted fault is what they say."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.diagnose.api import Finding
from analysis.diagnose.registry import diagnose
from analysis.diagnose.subject import Subject
from analysis.equilibrium import ablation, navg_sweep, non_normality, nudge_sweep
from analysis.equilibrium.looked import BODY, by_group, contenders, cosine, estimated, exact, own_name, problem_of
from tests.analysis.equilibrium.conftest import MakeSubject
from tests.analysis.values import estimate, number, value
from tests.trainables.equilibrium.configs import tiny
from trainables.equilibrium.config import EstimatorName
from trainables.equilibrium.estimators.api import Problem
from trainables.equilibrium.field.softmax import SoftmaxField
from trainables.equilibrium.linearised import Linearised


def ask(subject: Subject, name: str) -> Finding:
    (finding,) = diagnose(subject, [name])
    return finding


def test_plain_propagation_points_elsewhere_where_the_jacobian_is_far_from_normal_and_tracking_does_not(
    make_subject: MakeSubject,
) -> None:
    gradients = ablation.measured(make_subject(t2=30))
    sound = ablation.judge("aep_dyadic", gradients)
    assert sound.verdict == "pass"
    assert estimate(sound, "cosine_aep_dyadic").value > 0.99
    assert value(sound, "cosine_ep") < 0.7
    assert "these do not point the right way: " in sound.summary
    assert "ep 0." in sound.summary
    plain = ablation.judge("ep", gradients)
    assert plain.verdict == "fail"
    assert "The gradient of ep" in plain.summary
    assert "it does not point the right way" in plain.summary
    assert plain.threshold == {"cosine_ep": 0.95}


def test_a_group_that_gets_the_wrong_gradient_is_named() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn() -> dict[str, Tensor]:
        wq, pj = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (10, 1000))
        return {BODY: torch.cat([wq, pj]), "wq": wq, "pj": pj}

    exact = [drawn() for _ in range(4)]
    turned = [{BODY: torch.cat([-one["wq"], one["pj"]]), "wq": -one["wq"], "pj": one["pj"]} for one in exact]
    long = [{group: 3.0 * vector for group, vector in one.items()} for one in exact]
    others = {"ep": exact, "aep_frozen": exact, "bptt": exact, "exact": exact}
    found = ablation.judge("aep_dyadic", {"aep_dyadic": turned, **others})
    assert estimate(found, "cosine_aep_dyadic").low > 0.95
    assert value(found, "cosine_of_wq") == pytest.approx(-1.0)
    assert found.verdict == "warn"
    assert "but of wq it is -1.000" in found.summary
    stretched = ablation.judge("aep_dyadic", {"aep_dyadic": long, **others})
    assert stretched.verdict == "warn"
    assert "but it is 3 times as long" in stretched.summary


def test_a_sign_is_not_overlooked_by_norms() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = [{BODY: torch.randn(9, generator=generator), "wq": torch.ones(1)} for _ in range(4)]
    turned = [{group: -vector for group, vector in one.items()} for one in exact]
    found = ablation.judge("ep", {"ep": turned, "aep_frozen": exact, "bptt": exact, "exact": exact})
    assert found.verdict == "fail"
    assert value(found, "cosine_ep") == pytest.approx(-1.0)
    assert value(found, "norm_ratio_ep") == pytest.approx(1.0)


def test_a_phase_that_nobody_watches_is_told_by_a_cosine_that_is_flat_in_the_nudge(make_subject: MakeSubject) -> None:
    settled = ask(make_subject(), "nudge_sweep")
    assert settled.verdict == "pass"
    short = ask(make_subject(t2=4, select=False, t2_tol=None), "nudge_sweep")
    assert short.verdict == "fail"
    assert number(short, "spread_over_nudges") < 0.02
    assert number(short, "cosine_at_longer_phases") > 0.98
    assert "whatever the nudge" in short.summary
    assert "the phase ends before it has settled" in short.summary


def test_a_correction_that_is_clipped_is_told_by_a_cosine_that_falls_with_the_nudge(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(estimator="aep_frozen", beta=0.1)
    with torch.no_grad():  # a loss that pulls less, so that a strong nudge is right as well
        subject.task.model.get_parameter("head").mul_(0.2)
    right = ask(subject, "nudge_sweep")
    assert number(right, "cosine") > 0.95

    def clipped(problem: Problem, **others: Any) -> Any:
        linearised, z = problem.linearised, problem.free.z
        adjoint = exact(problem).adjoint
        assert adjoint is not None
        # What a nudge of 0.02 needs is let through.
        most = 0.03 * (linearised.times(adjoint) - linearised.transposed(adjoint)).abs().max()

        def force(states: Tensor) -> Tensor:
            far = states - z
            correction = linearised.times(far) - linearised.transposed(far)
            return problem.field(states) - correction.clamp(-most, most)

        return force

    monkeypatch.setattr(import_module("trainables.equilibrium.estimators.aep_frozen"), "corrected", clipped)
    faulty = ask(subject, "nudge_sweep")
    assert faulty.verdict == "fail"
    assert number(faulty, "cosine_at_weaker_nudges") == pytest.approx(
        number(right, "cosine_at_weaker_nudges"), abs=0.01
    )
    assert "the nudge is too strong or a correction is clipped" in faulty.summary


def test_a_bias_that_no_setting_repairs_is_called_one(make_subject: MakeSubject) -> None:
    plain = ask(make_subject(estimator="ep"), "nudge_sweep")
    assert plain.verdict == "fail"
    assert "the estimator is biased, and no setting of it repairs that" in plain.summary


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"weak": 0.97, "own": 0.8, "long": 0.97}, "a weaker nudge gives 0.970, and a longer nudged phase gives 0.970"),
        ({"weak": 0.8, "own": 0.7, "long": 0.8, "both": 0.96}, "a weaker nudge in a longer phase gives 0.960"),
        ({"weak": 0.97, "own": math.nan, "long": 0.97}, "the nudged phase blows up"),
    ],
)
def test_what_a_grid_of_cosines_means(cells: dict[str, float], words: str) -> None:
    grid = {
        "half": {0.02: 0.1, 0.1: 0.1},
        "own": {0.02: cells["weak"], 0.1: cells["own"]},
        "long": {0.02: cells.get("both", 0.5), 0.1: cells["long"]},
        "settled": {0.02: 0.5, 0.1: 0.5},
    }
    found = nudge_sweep.judge("aep_dyadic", grid, 0.1)
    assert found.verdict == "fail"
    assert words in found.summary


def test_only_nudges_that_float32_has_digits_for_are_tried() -> None:
    assert nudge_sweep.nudges(tiny(beta=0.07), 0.07) == [0.02, 0.05, 0.07, 0.1, 0.2]
    assert nudge_sweep.nudges(tiny(estimator="holo", holo_points=4, holo_radius=0.3), 0.3) == [0.05, 0.1, 0.2, 0.3]


def errors(bias: float, noise: float, batches: int = 16, size: int = 4000) -> tuple[Tensor, Tensor]:
    """Gradients with an error of a given bias and noise across them, as shares of a length of 1."""
    generator = torch.Generator().manual_seed(0)
    true = torch.zeros(batches, size).double()
    true[:, 0] = 1.0
    own = true.clone()
    own[:, 1] += bias
    own[:, 2:] += noise * torch.randn(batches, size - 2, generator=generator).double() / math.sqrt(size - 2)
    return own, true


def test_bias_is_told_from_noise_and_each_has_its_size() -> None:
    assert navg_sweep.judge("x", *errors(0.0, 0.1)).verdict == "pass"
    noisy = navg_sweep.judge("x", *errors(0.0, 2.0))
    assert noisy.verdict == "warn"
    assert number(noisy, "error_of_one_batch") == pytest.approx(2.0, rel=0.05)
    assert estimate(noisy, "error_in_the_limit").high < 0.3
    # The error 2 / sqrt(n) leaves a cosine of 1 / sqrt(1 + 4 / n), which is 0.95 at n = 37.
    for batches in (1, 4, 16):
        assert value(noisy, f"cosine_at_navg_{batches}") == pytest.approx((1.0 + 4.0 / batches) ** -0.5, abs=0.03)
    assert number(noisy, "batches_needed") == pytest.approx(37, abs=8)
    assert "averages over about" in noisy.summary
    biased = navg_sweep.judge("x", *errors(1.0, 1.0))
    assert biased.verdict == "fail"
    assert number(biased, "error_of_one_batch") == pytest.approx(2**0.5, rel=0.05)
    limit = estimate(biased, "error_in_the_limit")
    assert limit.low < 1.0 < limit.high
    assert limit.half_width < 0.2
    assert number(biased, "batches_needed") == math.inf
    assert "no average over batches repairs it" in biased.summary


def test_an_error_that_follows_the_noise_of_batches_is_judged_by_what_is_left_of_both() -> None:
    # Gradients of batches are mostly noise, and the estimator turns what is common to them half round.
    own, true = errors(0.0, 0.0)
    generator = torch.Generator().manual_seed(2)
    spread = 5.0 * torch.randn(own.shape, generator=generator).double() / own.shape[1] ** 0.5
    common = true.clone()
    common[:, 1] = 1.0
    found = navg_sweep.judge("x", common + spread, true + spread)
    assert number(found, "error_of_one_batch") == pytest.approx(1.0 / 26**0.5, rel=0.05)
    limit = estimate(found, "error_in_the_limit")
    assert limit.low < 1.0 < limit.high


def test_bias_and_variance_have_no_bias_of_their_own() -> None:
    # Many small samples of known moments.
    generator = torch.Generator().manual_seed(1)
    found = np.array(
        [
            navg_sweep.parts(sample @ sample.T)
            for sample in 0.5 + torch.randn(4000, 4, 3, generator=generator, dtype=torch.float64)
        ]
    )
    assert found[:, 0].mean() == pytest.approx(3 * 0.25, abs=0.03)
    assert found[:, 1].mean() == pytest.approx(3.0, abs=0.1)


def test_the_error_of_plain_propagation_stays_in_averages(make_subject: MakeSubject) -> None:
    plain = ask(make_subject(estimator="ep"), "navg_sweep")
    assert plain.verdict in ("warn", "fail")
    assert estimate(plain, "error_in_the_limit").value > 0.33
    assert ask(make_subject(), "navg_sweep").verdict == "pass"


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [([[-1.0, 0.3], [0.3, -1.0]], 0.0), ([[0.0, 1.0], [-1.0, 0.0]], 2.0), ([[-1.0, 0.0], [0.0, -2.0]], 0.0)],
)
def test_the_distance_from_the_transpose_of_a_known_matrix(matrix: list[list[float]], expected: float) -> None:
    m = torch.tensor(matrix).double()
    jacobian = Linearised(lambda z: z @ m.T, torch.zeros(3, 4, 2).double())  # type: ignore[arg-type]
    found = non_normality.ratios(jacobian, torch.randn(3, 4, 2).double())
    assert found.tolist() == pytest.approx([expected] * 3, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "random", "along", "verdict"),
    [
        ("aep_frozen", 0.5, 2.0, "pass"),
        ("aep_frozen", 1.2, 0.1, "fail"),
        ("holo", 0.9001, 0.1, "warn"),
        ("ep", 0.5, 0.2, "pass"),
        ("ep", 0.5, 1.1, "fail"),
        ("ep", 2.0, 0.3287, "warn"),
        ("aep_dyadic", 2.0, 2.0, "pass"),
    ],
)
def test_non_normality_forbids_those_that_rely_on_a_normal_jacobian(
    name: EstimatorName, random: float, along: float, verdict: str
) -> None:
    spread = 0.01 * np.linspace(-1.0, 1.0, 16)
    found = non_normality.judge(name, random + spread, along + spread)
    assert found.verdict == verdict
    assert ("does not depend on it" in found.summary) == (name == "aep_dyadic")


def test_plain_propagation_is_off_by_the_skew_along_the_adjoint(make_subject: MakeSubject) -> None:
    # The tangent of the angle between its adjoint and the exact one is about |J a - J'a| / |J a|.
    subject = make_subject(estimator="ep", mode="softmax")
    found = ask(subject, "non_normality")
    assert found.verdict == "pass"
    skew = estimate(found, "non_normality_of_adjoint").value
    problem = problem_of(subject)
    plain, true = (by_group(subject.config, of(problem).gradients)[BODY] for of in (estimated, exact))
    assert cosine(plain, true) == pytest.approx((1.0 + skew**2) ** -0.5, abs=0.02)
    far = ask(make_subject(estimator="ep"), "non_normality")
    assert far.verdict == "fail"
    assert estimate(far, "non_normality").value > 0.9


def test_a_field_that_draws_random_numbers_breaks_the_duality_of_both_products(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(mode="softmax", estimator="aep_tracking")
    sound = ask(subject, "duality")
    assert sound.verdict == "pass"
    assert number(sound, "duality_error") < 1e-8
    assert number(sound, "contrast_noise") < 1e-3
    field, generator = SoftmaxField.__call__, torch.Generator().manual_seed(0)

    def noisy(self: SoftmaxField, z: Tensor) -> Tensor:
        return field(self, z) + 1e-3 * torch.randn(z.shape, generator=generator, dtype=z.dtype)

    monkeypatch.setattr(SoftmaxField, "__call__", noisy)
    faulty = ask(subject, "duality")
    assert faulty.verdict == "fail"
    assert "the field draws random numbers" in faulty.summary
    assert number(faulty, "duality_error") > 0.01


def test_a_backward_pass_that_is_not_that_of_the_field_is_told(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(mode="softmax")
    monkeypatch.setattr(SoftmaxField, "_mlp", lambda self, z, mlp=SoftmaxField._mlp: mlp(self, z.detach()))
    assert ask(subject, "duality").verdict == "fail"


@pytest.mark.parametrize(("estimator", "verdict"), [("aep_tracking", "fail"), ("aep_dyadic", "warn")])
def test_coarse_forces_drown_the_contrast_of_a_pair_and_not_one_that_is_held(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch, estimator: str, verdict: str
) -> None:
    field = SoftmaxField.__call__

    def coarse(self: SoftmaxField, z: Tensor) -> Tensor:
        force = field(self, z)
        # As if the damping were taken in bfloat16; exact in float64, which the first check takes.
        return force if z.dtype == torch.float64 else force + (z.bfloat16().float() - z).detach()

    monkeypatch.setattr(SoftmaxField, "__call__", coarse)
    found = ask(make_subject(mode="softmax", estimator=estimator, beta=1e-3), "duality")
    assert number(found, "duality_error") < 1e-8
    assert number(found, "contrast_noise") > 0.1
    assert found.verdict == verdict


def test_the_head_is_in_no_group(make_subject: MakeSubject) -> None:
    subject = make_subject()
    gradients = {name: torch.ones_like(weight) for name, weight in subject.task.model.weights.items()}
    groups = by_group(subject.config, gradients)
    assert next(iter(groups)) == BODY
    assert "head" not in groups
    assert groups[BODY].numel() == sum(vector.numel() for name, vector in groups.items() if name != BODY)


def test_every_estimator_is_tried_under_its_name() -> None:
    config = tiny(estimator="holo", holo_points=6, holo_radius=0.3)
    assert own_name(config) == "holo_6"
    assert [name for name in contenders(config) if "holo" in name] == ["holo_4", "holo_6", "holo_8"]
    assert [name for name in contenders(tiny()) if "holo" in name] == ["holo_4"]
    assert contenders(config)["holo_6"] == {"estimator": "holo", "holo_points": 6, "holo_radius": 0.3}
    assert contenders(tiny(bptt_steps=40, t1=12))["bptt"]["bptt_steps"] == 12
