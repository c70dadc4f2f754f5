"""Who ended where, on runs of `shared_moe` whose answer is known: equal tokens, equal sizes, the frontier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from analysis.language.finishers import paired
from analysis.search.matched_steps import matched_steps
from analysis.shared_moe import aux_tradeoff, efficiency, matched_tokens, parameter_verdict
from tests.analysis.shared_moe.moe_folders import (
    ALIKE,
    CONTROL,
    DENSE,
    LARGER,
    OWN,
    SEEDS,
    SMALLER,
    TOKENS,
    T,
    aux,
    config_of,
    estimate,
    falling,
    is_close,
    moe_run,
    number,
    told,
)
from trainables.shared_moe.accounting import count_params, matmul_params

TOKEN, SIZE, PRICE = matched_tokens.matched_tokens, parameter_verdict.parameter_verdict, efficiency.efficiency
AUX = aux_tradeoff.aux_tradeoff


def test_experts_and_dense_are_compared_at_equal_steps_and_at_equal_tokens(tmp_path: Path) -> None:
    run = moe_run(tmp_path / "run", {"quick": aux(0.02), "dense": LARGER}, falling, step_s={"quick": 0.2})
    found = TOKEN(run)
    half = T * 0.05 / math.sqrt(3)
    assert found.verdict == "pass"
    # At equal tokens both fall alike; after as many steps the dense one has seen twice as many.
    assert is_close(estimate(found, "c0001.minus_dense_at_equal_tokens"), -0.3, half)
    assert is_close(estimate(found, "c0001.minus_dense_at_equal_steps"), -0.3 + 20 * 0.1024, half)
    assert is_close(estimate(found, "c0001.minus_control_at_equal_tokens"), -0.5, half)
    assert is_close(estimate(found, "c0002.minus_control_at_equal_tokens"), -0.2, 0.0)
    assert is_close(estimate(found, "c0002.minus_control_at_equal_steps"), -0.2 - 20 * 0.1024, 0.0)
    assert is_close(estimate(found, "c0000.minus_dense_at_equal_tokens"), 0.2, 0.0)
    # The control ends at 8 - 20 x 0.1024; the quick one is there 0.5 / 20 million tokens earlier.
    assert number(found, "c0000.millions_of_tokens_to_control") == pytest.approx(0.1024)
    assert number(found, "c0001.millions_of_tokens_to_control") == pytest.approx(0.1024 - 0.025)
    assert number(found, "c0001.seconds_to_control") == pytest.approx(0.2 * (0.1024 - 0.025) * 1e6 / TOKENS)
    assert number(found, "c0002.millions_of_tokens_to_dense") == pytest.approx(0.2048)
    assert math.isnan(number(found, "c0001.millions_of_tokens_to_dense"))
    assert found.threshold == {"c0001.minus_dense_at_equal_tokens": 0.0}
    assert (
        "After 0.1024 million tokens c0001 (quick), the best with experts, is 0.300 (0.176 to 0.424)" in found.summary
    )
    assert "better than c0002 (dense), the best dense one (3 seeds in pairs)" in found.summary
    assert "no claim" in found.summary
    assert {series.label for series in found.plots[0].series} == {
        "c0000 (cpu-tiny), control",
        "c0001 (quick)",
        "c0002 (dense)",
    }


def test_on_the_clock_of_steps_pairs_are_those_of_matched_steps(tmp_path: Path) -> None:
    run = moe_run(tmp_path / "run", {"quick": aux(0.02), "dense": LARGER}, falling)
    for row in matched_steps(run):
        same = paired(run.candidates[row.candidate], run.candidates["c0000"], "steps")
        assert same is not None
        assert same.place == row.points[-1].step
        assert same.difference == pytest.approx(row.points[-1].mean)


@pytest.mark.parametrize(
    ("gap", "own", "verdict", "words"),
    [
        (0.2, 0.05, "fail", "experts do not reach the dense model at the same tokens"),
        (0.05, 0.1, "warn", "which of them is better at the same tokens cannot be told"),
        (0.0, 0.0, "pass", "experts are at least as good"),
    ],
)
def test_the_best_with_experts_is_judged_against_the_best_dense_one(
    tmp_path: Path, gap: float, own: float, verdict: str, words: str
) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        at = {CONTROL: 5.0, "worse": 5.5, "dense": 5.0 - gap, "worse dense": 6.0}[label]
        return told(at + ALIKE[seed] + (own * OWN[seed] if label == CONTROL else 0.0), step)

    configs = {"worse": aux(0.02), "dense": DENSE, "worse dense": {**DENSE, "d_ff": 256}}
    found = TOKEN(moe_run(tmp_path / "run", configs, metrics))
    assert (found.verdict, words in found.summary) == (verdict, True)
    assert list(found.threshold) == ["c0000.minus_dense_at_equal_tokens"]


def test_without_a_dense_model_the_control_is_what_is_left(tmp_path: Path) -> None:
    run = moe_run(tmp_path / "run", {"quick": aux(0.02)}, falling)
    found = TOKEN(run)
    assert (found.verdict, found.threshold) == ("no_evidence", {})
    assert "No dense model was trained to the end" in found.summary
    assert "c0001 (quick) is 0.500 (0.376 to 0.624) nats per token better" in found.summary
    assert not [name for name in found.values if "dense" in name]


def test_of_many_the_best_are_drawn_with_the_control_and_the_best_dense_one(tmp_path: Path) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        places = {CONTROL: 9, "dense": 8, "poor dense": 10}
        return told(4.0 + 0.1 * places.get(label, len(label)) + ALIKE[seed], step)

    configs = {**{"x" * i: aux(0.001 * i) for i in range(1, 8)}, "dense": DENSE, "poor dense": {**DENSE, "d_ff": 256}}
    found = TOKEN(moe_run(tmp_path / "run", configs, metrics))
    drawn = [series.label.partition(" ")[0] for series in found.plots[0].series]
    assert drawn == ["c0001", "c0002", "c0003", "c0004", "c0005", "c0006", "c0008", "c0000"]


def test_one_seed_decides_nothing_and_lost_ones_are_named(tmp_path: Path) -> None:
    stages = [{"until_step": 100, "num_seeds": 1}]
    found = TOKEN(moe_run(tmp_path / "one", {"dense": LARGER}, falling, stages=stages))
    assert (found.verdict, "one pair of seeds" in found.summary) == ("warn", True)
    fates: dict[tuple[int, int], Any] = {(1, 7): ("diverge", 60), (2, 7): ("fail", 10), (2, 42): ("fail", 10)}
    configs = {"quick": aux(0.02), "dense": LARGER}
    run = moe_run(tmp_path / "lost", configs, falling, fates=fates, resources={"max_failures": 0})
    found = TOKEN(run)
    assert "left out: 1 of 3 of c0001 (quick), 2 of 3 of c0002 (dense)." in found.summary
    assert is_close(estimate(found, "c0001.minus_dense_at_equal_tokens"), -0.3 + 0.05, math.nan) is False
    assert estimate(found, "c0001.minus_dense_at_equal_tokens").value == pytest.approx(-0.3 + 0.05)


SLOWER: dict[str, Any] = {**aux(0.01), "num_experts": 4, "d_ff": 128}


def above(percent: Mapping[int, float]) -> Any:
    """The control is at 100 at the end; ``smaller`` is so many percent above it, by seed."""
    return lambda label, seed, step: told(100.0 + (percent[seed] if label != CONTROL else 0.0), step)


@pytest.mark.parametrize(
    ("percent", "verdict", "grade"),
    [
        (-4.0, "pass", "4.0 (4.0 to 4.0) percent below its loss at the same tokens (3 seeds in pairs): excellent."),
        (2.99, "pass", "excellent."),
        (3.0, "pass", "good."),
        (6.99, "pass", "good."),
        (7.0, "warn", "fair."),
        (10.0, "warn", "fair."),
        (10.01, "fail", "weak."),
    ],
)
def test_grades_begin_where_they_say(tmp_path: Path, percent: float, verdict: str, grade: str) -> None:
    found = SIZE(moe_run(tmp_path / "run", {"smaller": SMALLER}, above(dict.fromkeys(SEEDS, percent))))
    assert (found.verdict, grade in found.summary) == (verdict, True)
    assert is_close(estimate(found, "c0001.percent_above_control"), percent, 0.0)
    assert {"excellent": 3.0, "good": 7.0, "fair": 10.0}.items() <= found.threshold.items()


@pytest.mark.parametrize(
    ("middle", "spread", "grades"),
    [
        (3.0, 0.1, "good, with an interval from excellent to good"),
        (8.0, 2.1, "fair, with an interval from excellent to weak"),
        (9.9, 0.1, "fair, with an interval from fair to weak"),
    ],
)
def test_an_interval_across_a_limit_is_a_warning(tmp_path: Path, middle: float, spread: float, grades: str) -> None:
    by_seed = {seed: middle + spread * own for seed, own in OWN.items()}
    found = SIZE(moe_run(tmp_path / "run", {"smaller": SMALLER}, above(by_seed)))
    assert found.verdict == "warn"
    assert grades in found.summary
    assert is_close(estimate(found, "c0001.percent_above_control"), middle, T * spread / math.sqrt(3))


def test_size_and_compute_stand_beside_the_gap(tmp_path: Path) -> None:
    configs = {"smaller": SMALLER, "slower": SLOWER}
    losses = {CONTROL: 4.0, "smaller": 4.2, "slower": 4.1}
    found = SIZE(moe_run(tmp_path / "run", configs, lambda label, seed, step: told(losses[label], step)))
    whole, small, slow = (config_of(**fields) for fields in ({}, SMALLER, SLOWER))
    assert number(found, "c0001.share_of_parameters") == count_params(small) / count_params(whole)
    assert number(found, "c0002.share_of_matmul_parameters") == matmul_params(slow) / matmul_params(whole)
    assert number(found, "c0002.millions_of_parameters") == count_params(slow) / 1e6
    share = matmul_params(slow) / matmul_params(whole)
    assert share < 0.9
    assert f"multiplied by {share:.2f} of the control's matrix entries: the gap confounds size and" in found.summary
    assert "the best of 2; the other: c0001 (smaller) with 0.64 of the parameters +5.0 percent (good)." in found.summary
    alone = SIZE(moe_run(tmp_path / "alone", {"smaller": SMALLER}, lambda label, seed, step: told(losses[label], step)))
    assert "confounds" not in alone.summary  # its experts are fewer and as wide: the compute is the same


def test_where_nobody_is_smaller_that_is_said(tmp_path: Path) -> None:
    configs = {"larger": {"num_experts": 20}, "nearly": {"num_experts": 15}}
    found = SIZE(moe_run(tmp_path / "run", configs, lambda _, seed, step: told(4.0, step)))
    assert found.verdict == "no_evidence"
    assert "fewer than 0.9 of the control's parameters: c0002 (nearly) has 0.97 of them." in found.summary
    assert len(found.values) == 4 * 2


def test_one_seed_of_a_smaller_one_decides_nothing(tmp_path: Path) -> None:
    stages = [{"until_step": 100, "num_seeds": 1}]
    found = SIZE(moe_run(tmp_path / "run", {"smaller": SMALLER}, above(dict.fromkeys(SEEDS, 1.0)), stages=stages))
    assert found.verdict == "warn"
    assert "excellent, by one seed, which decides nothing" in found.summary


def priced(label: str, seed: int, step: int) -> dict[str, float]:
    """Speed (tokens a second) and loss: ``small`` is fast and poor, ``wide`` as ``control`` and worse, ``big`` best."""
    loss, rate, own = {
        CONTROL: (5.0, 1000.0, 0.0),
        "small": (5.5, 2000.0, 0.001),
        "same": (5.2, 950.0, 0.001),
        "tied": (5.0, 900.0, 0.01),
        "big": (4.5, 500.0, 0.001),
    }[label]
    return told(loss + ALIKE[seed] + own * OWN[seed], step, tokens_per_s=rate + 0.1 * OWN[seed] * (step != 50))


PRICED: dict[str, dict[str, Any]] = {"small": SLOWER, "same": aux(0.02), "tied": aux(0.005), "big": {"d_ff": 512}}


def test_the_frontier_is_who_no_other_beats_on_both_sides(tmp_path: Path) -> None:
    found = PRICE(moe_run(tmp_path / "run", PRICED, priced))
    places = {
        cost: [found.values[f"c000{i}.frontier_by_{cost}"] for i in range(5)] for cost in ("speed", "compute", "size")
    }
    # By speed the one tied in loss is slower, but not worse by what seeds can tell; by size it costs the same.
    assert places["speed"] == [1.0, 1.0, 0.0, 0.5, 1.0]
    assert places["compute"] == places["size"] == [0.5, 1.0, 0.0, 0.5, 1.0]
    assert found.verdict == "warn"
    speeds = "c0004 (big), c0000 (cpu-tiny) and c0001 (small); perhaps: c0003 (tied); not: c0002 (same)."
    assert f"On the frontier by tokens per second: {speeds}" in found.summary
    assert "other work may have shared" in found.summary
    assert is_close(estimate(found, "c0001.tokens_per_s"), 2000.0, T * 0.1 / math.sqrt(3))
    assert number(found, "c0004.parameters") == count_params(config_of(d_ff=512)) / 1e6
    assert number(found, "millions_of_tokens") == pytest.approx(0.1024)
    assert [plot.log_x for plot in found.plots] == [False] * 3


def test_a_frontier_that_seeds_tell_apart_passes_and_one_seed_leaves_it_open(tmp_path: Path) -> None:
    configs = {name: PRICED[name] for name in ("small", "big")}
    assert PRICE(moe_run(tmp_path / "clear", configs, priced)).verdict == "pass"
    stages = [{"until_step": 100, "num_seeds": 1}]
    found = PRICE(moe_run(tmp_path / "one", configs, priced, stages=stages))
    assert found.verdict == "warn"
    assert [found.values[f"c000{i}.frontier_by_speed"] for i in range(3)] == [0.5] * 3
    assert "On the frontier by tokens per second: none for certain; perhaps: c0002 (big)," in found.summary
    # Sizes are known without seeds: nobody is smaller than the smallest.
    assert [found.values[f"c000{i}.frontier_by_size"] for i in range(3)] == [0.5, 1.0, 0.5]


def test_what_was_not_reported_is_said(tmp_path: Path) -> None:
    def metrics(label: str, seed: int, step: int) -> dict[str, float]:
        return {**priced(label, seed, step), "tokens_per_s": math.nan}

    found = PRICE(moe_run(tmp_path / "rate", PRICED, metrics))
    assert "No candidate has reported tokens per second." in found.summary
    assert not [name for name in found.values if name.endswith("frontier_by_speed")]
    assert len(found.plots) == 2
    tokenless = moe_run(tmp_path / "none", PRICED, lambda *_: {"eval_loss": 4.0, "balance_entropy": 0.9})
    for diagnostic in (TOKEN, SIZE, PRICE):
        finding = diagnostic(tokenless)
        assert (finding.verdict, "on how many tokens it was trained" in finding.summary) == ("no_evidence", True)
    assert AUX(tokenless).verdict == "pass"
