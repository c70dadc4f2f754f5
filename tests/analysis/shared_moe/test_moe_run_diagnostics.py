"""Diagnostics of whole runs of `shared_moe`, on runs whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis.diagnose.api import Diagnostic
from analysis.diagnose.findings import from_json, to_json
from analysis.language.finishers import matched, reached
from analysis.search.best_so_far import BestSoFar
from analysis.shared_moe import aux_tradeoff, efficiency, matched_tokens, parameter_verdict
from analysis.shared_moe.aux_tradeoff import effective_coefficient
from analysis.stats.interval import Interval, mean_interval
from analysis.view import Run
from tests.analysis.run_folders import read_run, simulate, write_run
from tests.analysis.shared_moe.moe_folders import (
    ALIKE,
    CONTROL,
    DENSE,
    LARGER,
    NO_AUX,
    OWN,
    SEEDS,
    SMALLER,
    T,
    aux,
    config_of,
    estimate,
    falling,
    is_close,
    moe_plan,
    moe_run,
    told,
)
from tests.worlds.plans import plan
from tests.worlds.scripted import curve
from trainables.shared_moe.routing import aux_coefficient

AUX, TOKEN = aux_tradeoff.aux_tradeoff, matched_tokens.matched_tokens
SIZE, PRICE = parameter_verdict.parameter_verdict, efficiency.efficiency
ALL: tuple[Diagnostic, ...] = (AUX, TOKEN, SIZE, PRICE)

COEFFICIENTS = {"aux-0": 0.0, "aux-5": 0.005, "aux-20": 0.02, CONTROL: 0.01}


def auxes(folder: Path, slope: float, own: float, **changes: Any) -> Run:
    """Four coefficients from 0 to 0.02; loss rises with them by ``slope``, which ``own`` spreads over seeds."""

    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        c = COEFFICIENTS[label]
        loss = 4.0 + 20.0 / step + ALIKE[seed] + (slope + own * OWN[seed]) * c
        return told(loss, step, balance_entropy=0.7 + 10.0 * c, max_vio=3.0 - 100.0 * c)

    return moe_run(folder, {name: aux(c) for name, c in COEFFICIENTS.items() if name != CONTROL}, metrics, **changes)


def test_a_planted_cost_of_balance_is_found_with_its_size(tmp_path: Path) -> None:
    found = AUX(auxes(tmp_path / "run", slope=3.0, own=0.3))
    assert found.verdict == "fail"
    assert "More balance costs loss: from the weakest to the strongest" in found.summary
    assert "from 0 to 0.02 over 100 steps" in found.summary
    assert is_close(estimate(found, "cost"), 0.06, T * 0.3 * 0.02 / math.sqrt(3))
    assert is_close(estimate(found, "cost_per_0.01"), 0.03, T * 0.3 * 0.01 / math.sqrt(3))
    assert is_close(estimate(found, "change_of_balance_entropy"), 0.2, 0.0)
    assert is_close(estimate(found, "change_of_max_vio"), -2.0, 0.0)
    assert estimate(found, "rank_correlation") == Interval(1.0, 1.0, 1.0)
    assert is_close(estimate(found, "c0003.minus_control"), 0.03, T * 0.3 * 0.01 / math.sqrt(3))
    assert (found.values["num_seeds"], found.values["at_step"], found.values["c0003.coefficient"]) == (3, 100, 0.02)
    assert found.threshold == {"cost": aux_tradeoff.NEARLY_FREE}
    assert [plot.title for plot in found.plots][-1] == "Loss against balance"


def test_a_cost_that_is_not_there_is_not_claimed(tmp_path: Path) -> None:
    free = AUX(auxes(tmp_path / "free", slope=0.1, own=0.01))
    assert free.verdict == "pass"
    assert "More balance costs at most 0.01 nats" in free.summary
    rewarded = AUX(auxes(tmp_path / "rewarded", slope=-3.0, own=0.3))
    assert (rewarded.verdict, "is even rewarded" in rewarded.summary) == ("pass", True)
    noisy = AUX(auxes(tmp_path / "noisy", slope=0.1, own=5.0))
    assert noisy.verdict == "warn"
    assert "cannot be told" in noisy.summary
    assert "costs loss:" not in noisy.summary
    small = AUX(auxes(tmp_path / "small", slope=0.4, own=0.1))
    assert (small.verdict, "perhaps less than 0.01" in small.summary) == ("warn", True)


@pytest.mark.parametrize(
    ("slope", "verdict", "words"),
    [
        (0.0, "warn", "cannot be told: from the weakest to the strongest the loss changes by 0.000 (0.000 to 0.000)"),
        (5.0, "fail", "A stronger coefficient, without visibly more balance, costs loss:"),
    ],
)
def test_what_did_not_change_the_balance_shows_no_price_of_it(
    tmp_path: Path, slope: float, verdict: str, words: str
) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        c = COEFFICIENTS[label]
        return told(4.0 + ALIKE[seed] + slope * c, step, balance_entropy=0.8 + 0.1 * OWN[seed] * c)

    found = AUX(moe_run(tmp_path / "run", {label: aux(c) for label, c in COEFFICIENTS.items() if c != 0.01}, metrics))
    assert (found.verdict, words in found.summary) == (verdict, True)
    assert ("did not visibly raise the balance" in found.summary) == (verdict == "warn")


def test_one_seed_leaves_it_open_however_large_it_looks(tmp_path: Path) -> None:
    found = AUX(auxes(tmp_path / "run", slope=3.0, own=0.0, stages=[{"until_step": 100, "num_seeds": 1}]))
    assert found.verdict == "warn"
    assert "cannot be told: from the weakest to the strongest the loss changes by 0.060" in found.summary
    assert "in one seed, and seeds are few" in found.summary
    assert math.isnan(estimate(found, "cost").low)


def test_coefficients_are_compared_at_the_last_step_that_all_of_them_saw(tmp_path: Path) -> None:
    stages = [{"until_step": 40, "num_seeds": 2, "top": 1}, {"until_step": 100, "num_seeds": 3}]
    fates: dict[tuple[int, int], Any] = {(3, 42): ("diverge", 20)}
    found = AUX(auxes(tmp_path / "run", slope=3.0, own=0.3, stages=stages, fates=fates))
    assert (found.values["at_step"], found.values["num_seeds"]) == (40, 1)
    assert "Seeds that were lost are left out: 1 of 2 of c0003 (aux-20)." in found.summary


def test_only_those_that_differ_in_nothing_else_are_compared(tmp_path: Path) -> None:
    configs = {
        "faster": {"lr": 2e-3, **aux(0.02)},
        "aux-0": NO_AUX,
        "free": {**NO_AUX, "balance": "lossfree"},
        "dense": DENSE,
    }
    losses = {CONTROL: 4.0, "faster": 1.0, "aux-0": 4.1, "free": 4.05, "dense": 1.0}

    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        return told(losses[label] + ALIKE[seed], step, balance_entropy=0.8 if label == "free" else math.nan)

    found = AUX(moe_run(tmp_path / "run", configs, metrics))
    assert found.verdict == "pass"
    assert is_close(estimate(found, "cost"), -0.1, 0.0)
    assert {name.partition(".")[0] for name in found.values if name.startswith("c0")} == {"c0000", "c0002", "c0003"}
    assert "c0003.coefficient" not in found.values
    assert "What it does to the balance was not reported." in found.summary
    (only,) = found.plots[-1].series
    assert (only.label, list(only.x)) == ("loss-free balancing", pytest.approx([0.8]))


def test_nobody_to_compare_is_said(tmp_path: Path) -> None:
    run = moe_run(tmp_path / "run", {"faster": {"lr": 2e-3}}, lambda _, seed, step: told(4.0, step))
    found = AUX(run)
    assert found.verdict == "no_evidence"
    assert "share everything but the coefficient" in found.summary


@pytest.mark.parametrize(
    "fields",
    [
        aux(0.01),
        NO_AUX,
        {"aux_loss_coef_start": 0.05, "aux_warmup_frac": 0.1, "aux_decay_end_frac": 0.5},
        {"aux_loss_coef_start": 0.05, "aux_decay_end_frac": 0.3},
        {"aux_loss_coef_start": 0.05, "aux_warmup_frac": 0.25, "aux_decay_end_frac": 0.25},
    ],
)
def test_the_effective_coefficient_is_the_mean_of_what_training_used(fields: Mapping[str, Any]) -> None:
    config = config_of(**fields)
    for steps in (1, 119, 120, 121, 300, 600, 601, 1500):
        used = [aux_coefficient(config, step) for step in range(steps)]
        assert effective_coefficient(config, steps) == pytest.approx(math.fsum(used) / steps)
    assert effective_coefficient(config, 0) == 0.0


def without_anything(folder: Path) -> dict[str, Run]:
    lost: dict[tuple[int, int], Any] = {(i, seed): ("diverge", 10) for i in range(3) for seed in SEEDS}
    configs = {"smaller": SMALLER, "dense": DENSE}
    finite = {(0, 42): ("fail", 10), (0, 1337): ("fail", 10), **{key: v for key, v in lost.items() if key[0]}}
    races = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    simulate(folder / "race", curve, unit="member", num_candidates=0, stages=races)
    simulate(folder / "other", curve, num_candidates=2, stages=races)
    return {
        "empty": read_run(write_run(folder / "empty", plan(), [])),
        "lost": moe_run(folder / "lost", configs, falling, fates=lost),
        "one": moe_run(folder / "one", configs, falling, fates=finite, resources={"max_failures": 0}),
        "race": read_run(folder / "race"),
        "other": read_run(folder / "other"),
        "blank": moe_run(folder / "blank", configs, lambda *_: {"eval_loss": math.nan}),
    }


def test_runs_without_anything_give_no_evidence_and_no_exception(tmp_path: Path) -> None:
    for state, run in without_anything(tmp_path).items():
        for diagnostic in ALL:
            finding = diagnostic(run)
            assert finding.verdict == "no_evidence", (state, finding)
            assert finding.summary


def test_a_control_that_has_not_begun_is_not_called_missing(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", moe_plan({"dense": DENSE}), []))
    assert {diagnostic(run).summary for diagnostic in ALL} == {"The control has not begun."}


def test_what_they_find_survives_the_way_to_disk(tmp_path: Path) -> None:
    run = moe_run(
        tmp_path / "run",
        {"smaller": SMALLER, "aux-0": NO_AUX, "dense": LARGER},
        lambda _, seed, step: told(4.0 + 1.0 / step + ALIKE[seed], step),
    )
    findings = [diagnostic(run) for diagnostic in ALL]
    again = from_json(to_json(findings))
    assert [finding.summary for finding in again] == [finding.summary for finding in findings]
    assert [finding.plots for finding in again] == [finding.plots for finding in findings]
    assert {value for finding in findings for value in finding.threshold} >= {"cost", "good"}


def test_curves_are_straight_between_reports_and_end_where_they_end() -> None:
    whole, stopped = BestSoFar((10.0, 20.0), (3.0, 1.0), keeps=False), BestSoFar((10.0,), (2.0,), keeps=True)
    assert [whole.between(place) for place in (10.0, 15.0, 20.0)] == [3.0, 2.0, 1.0]
    assert math.isnan(whole.at(9.0))
    assert math.isnan(whole.at(21.0))
    assert stopped.at(1000.0) == 2.0
    assert matched(({7: whole, 42: whole}, {7: stopped})) == (20.0, [7])
    assert matched(({7: stopped}, {7: stopped})) == (10.0, [7])
    assert matched(({7: whole}, {42: whole}))[1] == []
    assert matched(())[1] == []
    assert reached([whole], 3.0) == 10.0
    assert reached([whole], 2.5) == 12.5
    assert reached([whole, stopped], 2.0) == 15.0
    assert math.isnan(reached([whole], 0.5))
    assert math.isnan(reached([], 0.5))


def test_intervals_over_seeds_are_students() -> None:
    values = [0.3, -0.2, 0.9, 0.4]
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert math.isnan(mean_interval([1.0]).low)
    assert math.isnan(mean_interval([]).value)
    assert math.isnan(mean_interval([1.0, math.nan]).value)
