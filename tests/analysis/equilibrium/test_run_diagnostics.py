"""Diagnostics of whole runs of `equilibrium`, on runs whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.diagnose.api import Diagnostic
from analysis.diagnose.findings import from_json, to_json
from analysis.equilibrium import forward_stability, gradient_direction, path_length
from analysis.view import Run
from tests.analysis.family_runs import CONTROL, SEEDS, Metrics, family_plan, family_run
from tests.analysis.run_folders import read_run, simulate, write_run
from tests.analysis.values import estimate, number, value
from tests.worlds.plans import plan
from tests.worlds.scripted import curve
from trainables.registry import build_config, get_family

DIRECTION = gradient_direction.gradient_direction
STABILITY = forward_stability.forward_stability
PATH = path_length.path_length
ALL: tuple[Diagnostic, ...] = (DIRECTION, STABILITY, PATH)

ESTIMATORS: dict[str, dict[str, Any]] = {
    "plain": {"estimator": "ep"},
    "frozen": {"estimator": "aep_frozen"},
    "bptt": {"estimator": "bptt", "bptt_steps": 20},
}
OWN = {7: -1.0, 42: 0.0, 1337: 1.0}


def config_of(**fields: Any) -> Any:
    return build_config(get_family("equilibrium"), fields, preset=CONTROL)


FASTER = {"lr": 2.0 * config_of().lr}
T = 4.302652729911275
"""Student's t, 97.5%, 2 degrees of freedom."""


def told(loss: float, step: int, **others: float) -> dict[str, float]:
    """One report of a member that is well; ``others`` replace or add metrics, and NaN leaves one out."""
    usual = {"tokens": 100.0 * step, "cosine": 0.999, "eval_residual": 1e-4, "step_residual": 1e-4, "abscissa": -0.5}
    found = {"val_ce": loss, **usual, **others}
    return {name: metric for name, metric in found.items() if metric == metric}


def run_of(folder: Path, metrics: Metrics, configs: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Run:
    return family_run(folder, "equilibrium", ESTIMATORS if configs is None else configs, metrics, **changes)


def late_failure(label: str, seed: int, step: int) -> dict[str, float]:
    """As in the campaign: all are right early; late plain is orthogonal, frozen swings, and tracking stays right."""
    late = {
        "plain": 0.19 + 0.02 * OWN[seed],
        "frozen": (0.8 if step % 20 else -0.06) + 0.1 * OWN[seed],
        "bptt": 0.84 + 0.01 * OWN[seed],
        CONTROL: 0.9987,
    }[label]
    early = 0.93 if label == "plain" else 0.999
    return told(4.0 + 20.0 / step, step, cosine=early if step <= 40 else late)


def test_estimators_that_point_elsewhere_late_in_training_are_named_with_bands_over_seeds(tmp_path: Path) -> None:
    found = DIRECTION(run_of(tmp_path / "run", late_failure))
    assert found.verdict == "fail"
    assert found.summary.startswith(
        "From step 67 on, gradients by ep 0.19 (0.17 to 0.21) and aep_frozen 0.37 (0.27 to 0.47) point the wrong way; "
        "by bptt 0.84 (0.83 to 0.85) do not point the right way; by aep_dyadic 1.00 (1.00 to 1.00) point the right "
    )
    plain = estimate(found, "late_cosine_ep")
    assert plain.half_width == pytest.approx(T * 0.02 / math.sqrt(3))
    assert value(found, "c0001.early_cosine") == pytest.approx(0.93)
    # One late reading of the frozen form looks fine; their mean does not.
    assert estimate(found, "late_cosine_aep_frozen").value == pytest.approx((0.8 - 0.06) / 2)
    assert number(found, "c0002.lowest_cosine") == pytest.approx(-0.16)
    assert estimate(found, "c0001.late_cosine") == plain
    assert found.threshold == {f"late_cosine_{n}": 0.9 for n in ("aep_dyadic", "ep", "aep_frozen", "bptt")}
    curves, means = found.plots
    assert means.x_ticks == ("ep", "aep_frozen", "bptt", "aep_dyadic")
    ep = next(series for series in curves.series if series.label == "ep")
    assert list(ep.x) == list(range(10, 101, 10))
    assert (ep.low[-1], ep.y[-1], ep.high[-1]) == pytest.approx((0.17, 0.19, 0.21))


def test_the_last_third_begins_with_the_reading_at_two_thirds(tmp_path: Path) -> None:
    stages = [{"until_step": 240, "num_seeds": 3}]
    found = DIRECTION(
        run_of(
            tmp_path / "run",
            lambda label, seed, step: told(4.0, step, cosine={160: 0.5, 200: 0.6, 240: 0.7}.get(step, 1.0)),
            stages=stages,
            eval_every=40,
        )
    )
    assert value(found, "late_cosine_ep") == pytest.approx(0.6)
    assert value(found, "c0001.early_cosine") == pytest.approx(1.0)


def test_right_estimators_pass_and_one_that_is_right_in_some_seeds_only_warns(tmp_path: Path) -> None:
    right = DIRECTION(run_of(tmp_path / "right", lambda label, seed, step: told(4.0, step)))
    assert (right.verdict, "point the right way" in right.summary) == ("pass", True)
    some = DIRECTION(
        run_of(
            tmp_path / "some",
            lambda label, seed, step: told(4.0, step, cosine=0.92 + (0.07 * OWN[seed] if label == "plain" else 0.0)),
        )
    )
    assert some.verdict == "warn"
    assert "by ep 0.92 (0.85 to 0.99) point the right way in some seeds only" in some.summary
    assert number(some, "c0001.seeds_right") == 2
    assert estimate(some, "late_cosine_ep").high == 1.0  # no cosine is above


def test_candidates_of_one_estimator_are_judged_together_seed_by_seed(tmp_path: Path) -> None:
    configs = {"slow": {"lr": 1e-3}, "warm": {"warm_switch_step": 20, "warm_estimator": "ep"}}
    cosines = {CONTROL: 1.0, "slow": 0.9, "warm": 0.6}
    found = DIRECTION(
        run_of(tmp_path / "run", lambda label, seed, step: told(4.0, step, cosine=cosines[label]), configs)
    )
    assert value(found, "late_cosine_aep_dyadic") == pytest.approx(0.95)
    assert value(found, "late_cosine_ep_then_aep_dyadic") == pytest.approx(0.6)
    assert value(found, "c0001.late_cosine") == pytest.approx(0.9)


def test_readings_that_are_missing_or_not_finite_are_left_out_and_lost_estimators_are_said(tmp_path: Path) -> None:
    fates: dict[tuple[int, int], Any] = {(1, seed): ("diverge", 60) for seed in SEEDS}
    found = DIRECTION(run_of(tmp_path / "run", late_failure, fates=fates))
    assert "late_cosine_ep" not in found.threshold
    assert math.isnan(estimate(found, "c0001.late_cosine").value)
    assert math.isnan(number(found, "c0001.seeds_right"))
    assert "There is no reading so late of ep." in found.summary
    one: dict[tuple[int, int], Any] = {(1, 42): ("diverge", 90)}
    found = DIRECTION(run_of(tmp_path / "one", late_failure, fates=one))
    assert "by ep 0.19 (0.17 to 0.21; 1 lost) and" in found.summary
    assert found.verdict == "fail"


def test_one_seed_is_taken_at_its_word(tmp_path: Path) -> None:
    stages = [{"until_step": 100, "num_seeds": 1}]
    found = DIRECTION(run_of(tmp_path / "run", late_failure, stages=stages))
    assert found.verdict == "fail"
    assert "gradients by ep 0.17 (one seed) and aep_frozen 0.27 (one seed) point the wrong way" in found.summary


def test_an_eigenvalue_warns_before_the_residual_and_who_was_lost_is_named(tmp_path: Path) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        if label != "plain":
            return told(4.0, step)
        residual = 1e-4 if step < 60 else 0.01 if step < 80 else 0.1
        loss = 4.0 if step < 80 else 4.5
        return told(loss, step, abscissa=0.1 if step >= 30 else -0.1, step_residual=residual)

    found = STABILITY(run_of(tmp_path / "run", metrics))
    assert found.verdict == "fail"
    assert "Relaxation was lost in members of c0001 (plain)" in found.summary
    assert "An eigenvalue warned 30 steps before the residual" in found.summary
    assert number(found, "c0001.first_eigenvalue") == 30.0
    assert number(found, "c0001.first_residual") == 60.0
    assert number(found, "c0001.first_lost") == 80.0
    assert number(found, "c0001.rebound") == pytest.approx(0.5)
    assert found.values["c0001.members_lost"] == 3
    assert found.values["c0000.members_lost"] == 0
    assert math.isnan(number(found, "c0000.first_eigenvalue"))


@pytest.mark.parametrize(
    "fault",
    [{"abscissa": 0.01}, {"step_residual": 0.006}, {"jr_pinned": 201.0}],
)
def test_each_alarm_is_one_alone(tmp_path: Path, fault: dict[str, float]) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        return told(4.0, step, **(fault if (label, seed, step) == ("frozen", 42, 50) else {}))

    found = STABILITY(run_of(tmp_path / "run", metrics))
    assert found.verdict == "warn"
    assert found.summary == "There were alarms in members of c0002 (frozen)."


@pytest.mark.parametrize(("rebound", "verdict"), [(0.05, "pass"), (0.15, "warn")])
def test_a_loss_that_comes_back_up_is_an_alarm(tmp_path: Path, rebound: float, verdict: str) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        return told(4.0 + (rebound if (label, step) == ("plain", 60) else 0.0), step)

    found = STABILITY(run_of(tmp_path / "run", metrics))
    assert found.verdict == verdict
    assert number(found, "c0001.rebound") == pytest.approx(rebound)


def test_a_member_that_diverged_was_lost(tmp_path: Path) -> None:
    fates: dict[tuple[int, int], Any] = {(2, 42): ("diverge", 60)}
    found = STABILITY(run_of(tmp_path / "run", lambda label, seed, step: told(4.0, step), fates=fates))
    assert found.verdict == "fail"
    assert found.values["c0002.members_lost"] == 1
    assert number(found, "c0002.first_lost") == 60.0


def of_path(gain: float) -> Callable[[str, int, int], dict[str, float]]:
    """A loss that is a function of the summed learning rate alone, but for what ``gain`` gives the faster one."""

    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        config = config_of(**({} if label == CONTROL else FASTER))
        path = sum(config.lr_at(k) for k in range(step))
        own = 0.01 * OWN[seed] if label == CONTROL else -gain
        return told(5.0 - 10.0 * path + own, step)

    return metrics


def test_what_is_ahead_by_its_learning_rate_alone_is_not_ahead_at_equal_path(tmp_path: Path) -> None:
    found = PATH(run_of(tmp_path / "run", of_path(0.0), {"faster": FASTER}))
    control, faster = config_of(), config_of(**FASTER)
    paths = [sum(config.lr_at(k) for k in range(100)) for config in (control, faster)]
    assert number(found, "c0000.path") == pytest.approx(paths[0])
    assert number(found, "c0001.path") == pytest.approx(paths[1])
    at_steps, at_path = (estimate(found, f"c0001.minus_control_at_equal_{of}") for of in ("steps", "path"))
    assert at_steps.value == pytest.approx(-10.0 * (paths[1] - paths[0]))
    assert at_path.value == pytest.approx(0.0, abs=1e-9)
    assert found.verdict == "warn"


def test_what_is_ahead_by_its_gradient_stays_ahead_at_equal_path(tmp_path: Path) -> None:
    found = PATH(run_of(tmp_path / "run", of_path(0.2), {"faster": FASTER}))
    assert estimate(found, "c0001.minus_control_at_equal_path").value == pytest.approx(-0.2, abs=1e-9)
    assert (found.verdict, "the two agree." in found.summary) == ("pass", True)
    assert len(found.plots) == 2


def without_anything(folder: Path) -> dict[str, Run]:
    lost: dict[tuple[int, int], Any] = {(i, seed): ("diverge", 10) for i in range(4) for seed in SEEDS}
    simulate(folder / "other", curve, num_candidates=2)
    return {
        "empty": read_run(write_run(folder / "empty", plan(), [])),
        "not begun": read_run(write_run(folder / "begun", family_plan("equilibrium", ESTIMATORS), [])),
        "lost": run_of(folder / "lost", late_failure, fates=lost),
        "other": read_run(folder / "other"),
        "blank": run_of(folder / "blank", lambda *_: {"val_ce": math.nan}),
    }


def test_runs_without_anything_give_no_evidence_and_no_exception(tmp_path: Path) -> None:
    for state, run in without_anything(tmp_path).items():
        for diagnostic in ALL:
            finding = diagnostic(run)
            assert finding.verdict == "no_evidence", (state, finding)
            assert finding.summary


def test_what_they_find_survives_the_way_to_disk(tmp_path: Path) -> None:
    findings = [diagnostic(run_of(tmp_path / "run", late_failure)) for diagnostic in ALL]
    again = from_json(to_json(findings))
    assert [finding.summary for finding in again] == [finding.summary for finding in findings]
    assert [finding.plots for finding in again] == [finding.plots for finding in findings]
