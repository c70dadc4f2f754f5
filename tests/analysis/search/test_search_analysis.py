"""What a search says about itself, on searches whose answer is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, distribution_to_json

from analysis.search.cost import ledger, quality_against_cost
from analysis.search.gate_regret import gate_regret
from analysis.search.importance import ENOUGH, MIN_CANDIDATES, importance
from analysis.search.matched_steps import matched_steps
from analysis.search.seed_variance import seed_variance
from analysis.view import Run
from tests.analysis.run_folders import read_run, simulate, write_run
from tests.worlds import journals
from tests.worlds.plans import plan
from tests.worlds.scripted import Metrics, Simulation, curve
from tune_rh.record import ranking
from tune_rh.record.events import CandidateAdded, Event, SessionEnded

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "kind": CategoricalDistribution(["a", "b"]),
    "idle": FloatDistribution(0.0, 1.0),
}
ONE_SEED = [{"until_step": step, "num_seeds": 1} for step in (20, 60, 120)]


def drawn(index: int) -> dict[str, Any]:
    rng = random.Random(f"drawn {index}")
    return {"lr": 10 ** rng.uniform(-4, -1), "kind": rng.choice("ab"), "idle": rng.random()}


def with_params(event: Event) -> Event:
    """The event with what the candidate was drawn from, as the sampler would have written it."""
    if not isinstance(event, CandidateAdded) or event.origin == "control":
        return event
    params = drawn(int(event.candidate[1:]))
    texts = {name: distribution_to_json(DISTRIBUTIONS[name]) for name in params}
    return replace(event, params=params, distributions=texts)


def by_lr(index: int, seed: int, step: int) -> dict[str, float]:
    """Decided by the learning rate alone."""
    return {"val_loss": abs(math.log10(drawn(index)["lr"]) + 2.0) + 1 / step}


def by_chance(index: int, seed: int, step: int) -> dict[str, float]:
    return {"val_loss": random.Random(f"chance {index}").random() + 1 / step}


def with_drawn(folder: Path, metrics: Metrics, num: int, mode: str = "min") -> Run:
    sign = 1.0 if mode == "min" else -1.0
    of = plan(num_candidates=num).model_copy(update={"mode": mode})

    def signed(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": sign * metrics(index, seed, step)["val_loss"]}

    events = Simulation(of, signed, slots=2).run().events
    return read_run(write_run(folder, of, map(with_params, events)))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_parameter_that_decides_stands_out_and_the_others_do_not(tmp_path: Path, mode: str) -> None:
    found = importance(with_drawn(tmp_path / "run", by_lr, 40, mode))
    assert [share.name for share in found.shares if share.stands_out] == ["lr"]
    assert found.shares[0].share > 0.8
    assert sum(share.share for share in found.shares) == pytest.approx(1.0)
    assert (found.gate, found.until_step, found.num_candidates, found.num_best) == (0, 20, 40, 10)
    assert "40 candidates scored at step 20 (gate 1 of 3)" in found.note


def test_a_later_gate_is_taken_once_enough_have_reached_it(tmp_path: Path) -> None:
    found = importance(with_drawn(tmp_path / "run", by_lr, 90))
    assert (found.gate, found.until_step) == (1, 60)
    assert 90 > found.num_candidates >= ENOUGH
    assert f"those {90 - found.num_candidates} that earlier gates stopped are not in it" in found.note


def test_where_nothing_decides_nothing_stands_out(tmp_path: Path) -> None:
    found = importance(with_drawn(tmp_path / "run", by_chance, 60))
    assert (found.gate, found.num_candidates) == (0, 60)
    assert [share.name for share in found.shares if share.stands_out] == []


def test_a_parameter_that_one_candidate_alone_drew_is_left_out_and_named(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    run = with_drawn(tmp_path / "run", by_lr, 40)
    without = {
        name: replace(candidate, params=some, distributions={key: candidate.distributions[key] for key in some})
        for name, candidate in run.candidates.items()
        for some in [{key: value for key, value in candidate.params.items() if key != "idle" or name == "c0007"}]
    }
    found = importance(replace(run, candidates=without))
    assert sorted(share.name for share in found.shares) == ["kind", "lr"]
    assert found.note.endswith("left out, since all candidates but one drew it alike or not at all: idle.")
    assert not [warning for warning in recwarn if "regimes" in str(warning.message)]


def test_too_few_candidates_have_no_importance_and_say_so(tmp_path: Path) -> None:
    found = importance(with_drawn(tmp_path / "run", by_lr, MIN_CANDIDATES - 1))
    assert (found.shares, found.gate) == ((), None)
    assert "9 candidates with drawn parameters were scored at a gate; it takes 10" in found.note


def chained(seed: int, correlations: Sequence[float], num: int = 200) -> Metrics:
    """Scores at the gates that are a chain of normals with these correlations; each gate's lie below those before."""
    rng = random.Random(seed)
    levels = [[rng.gauss(0, 1) for _ in range(num)]]
    for r in correlations:
        levels.append([r * x + math.sqrt(1 - r * r) * rng.gauss(0, 1) for x in levels[-1]])

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        gate = sum(step > at for at in (20, 60))
        return {"val_loss": levels[gate][index] - 100.0 * gate}

    return metrics


def test_the_correlation_is_found_although_the_gate_hides_it(tmp_path: Path) -> None:
    found = []
    for seed in range(4):
        simulate(tmp_path / str(seed), chained(seed, (0.8, 0.8)), num_candidates=60, stages=ONE_SEED)
        found.append(gate_regret(read_run(tmp_path / str(seed))).gates[0])
    for gate in found:
        assert gate.num_pairs == gate.num_passed >= 20
        assert gate.spearman is not None
        assert gate.corrected is not None
        assert gate.correlation is not None
        assert gate.chance_cut is not None
        assert gate.chance_cut_corrected is not None
        assert gate.spearman.low < gate.spearman.value < gate.spearman.high
        assert gate.corrected.low < 0.8 < gate.corrected.high
        assert gate.correlation.value < gate.corrected.value
        assert gate.chance_cut.value > gate.chance_cut_corrected.value
        assert gate.chance_cut.low <= gate.chance_cut.value <= gate.chance_cut.high


def test_gates_that_rank_perfectly_cut_nobody_and_gates_that_rank_by_chance_cut_most(tmp_path: Path) -> None:
    chances = {}
    for r in (0.0, 1.0):
        simulate(tmp_path / str(r), chained(0, (r, r)), num_candidates=60, stages=ONE_SEED)
        found = gate_regret(read_run(tmp_path / str(r)))
        assert found.chance_cut is not None
        chances[r] = found.chance_cut.value
        assert found.audit is None
    assert chances[1.0] < 0.15
    assert chances[0.0] > 0.6


def test_few_candidates_leave_it_open(tmp_path: Path) -> None:
    simulate(tmp_path / "run", chained(0, (1.0, 1.0)), num_candidates=12, stages=ONE_SEED)
    found = gate_regret(read_run(tmp_path / "run"))
    first, second = found.gates
    # Four that went on in perfect order: seen, and hardly evidence.
    assert first.num_pairs == 4
    assert first.spearman is not None
    assert first.corrected is not None
    assert first.spearman.value == pytest.approx(1.0)
    assert math.isnan(first.spearman.low)
    assert first.corrected.low < 0.2
    assert "hardly enough" in first.note
    assert (second.spearman, second.chance_cut, found.chance_cut) == (None, None, None)
    assert "gate at step 60" in found.note
    assert "audit" in found.note


def test_one_stage_has_no_gate(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=3, stages=ONE_SEED[:1])
    assert "no gate" in gate_regret(read_run(tmp_path / "run")).note


def test_an_audit_shows_who_would_have_won(tmp_path: Path) -> None:
    stages = [{"until_step": 20, "num_seeds": 1, "top": 2}, {"until_step": 60, "num_seeds": 1}]
    of = plan(num_candidates=6, stages=stages)

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        slow = index == 5  # the worst at the gate, and the best in the end
        return {"val_loss": (9.0 if slow else index) if step <= 20 else (-5.0 if slow else index - 1.0)}

    done = Simulation(of, metrics).run()
    folder = write_run(tmp_path / "run", of, [e for e in done.events if not isinstance(e, SessionEnded)])
    for name in ("c0004", "c0005"):
        index = int(name[1:])
        member = {"member": f"{name}-s7"}
        promoted = {"candidate": name, "gate": 0, "reason": "audit", "score": 9.0, "rank": 5, "num_scored": 6}
        report = {"step": 60, "metrics": metrics(index, 7, 60), "train_s": 1.0, "eval_s": 0.0, "diverged": False}
        more: list[dict[str, Any]] = [
            {"event": "Promoted", **promoted},
            {"event": "JobStarted", **member, "stage": 1, "until_step": 60, "at_s": 0.0, "purpose": "train"},
            {"event": "Evaluated", **member, **report},
            {"event": "JobEnded", **member, "outcome": "completed", "reason": "", "at_s": 0.0},
        ]
        journals.extend(folder / "journal.jsonl", map(json.dumps, more))
    audit = gate_regret(read_run(folder)).audit
    assert audit is not None
    assert (audit.audited, audit.better) == (("c0004", "c0005"), ("c0005",))
    assert (audit.score, audit.winner) == (-5.0, 0.0)
    assert audit.share.value == 0.5
    assert 0.0 < audit.share.low < 0.5 < audit.share.high < 1.0


@pytest.mark.parametrize(("between", "within"), [(1.0, 0.5), (0.2, 1.0)])
def test_variance_is_split_between_candidates_and_seeds(tmp_path: Path, between: float, within: float) -> None:
    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        own = between * random.Random(f"candidate {index}").gauss(0, 1)
        common = {7: 0.0, 42: 3.0, 1337: 6.0}[seed]  # what a seed does to everybody does not tell candidates apart
        return {"val_loss": own + common + within * random.Random(f"{index} {seed}").gauss(0, 1)}

    stages = [{"until_step": 20, "num_seeds": 3}]
    simulate(tmp_path / "run", metrics, num_candidates=80, stages=stages)
    (row,) = seed_variance(read_run(tmp_path / "run"))
    assert (row.num_candidates, row.num_values, row.num_lost) == (80, 240, 0)
    true = within**2 / (between**2 + within**2)
    assert row.seed_share.low < true < row.seed_share.high
    assert row.seed_share.high - row.seed_share.low < 0.4
    assert row.within == pytest.approx(within**2, rel=0.2)
    assert row.common > 1.0
    assert row.best_share > row.seed_share.value


def test_the_interval_of_the_seeds_share_covers_it_as_often_as_it_says(tmp_path: Path) -> None:
    covered = 0
    for trial in range(60):
        rng = random.Random(trial)
        table = {(c, s): 0.0 for c in range(9) for s in (7, 42)}
        for c in range(9):
            own = rng.gauss(0, 1)
            table |= {(c, s): own + rng.gauss(0, 0.7) for s in (7, 42)}
        simulate(
            tmp_path / str(trial),
            lambda index, seed, step, table=table: {"val_loss": table[index - 1, seed] if index else 9.0},  # type: ignore[misc]
            num_candidates=9,
            stages=[{"until_step": 10, "num_seeds": 2}],
        )
        (row,) = seed_variance(read_run(tmp_path / str(trial)))
        covered += row.seed_share.low <= 0.49 / 1.49 <= row.seed_share.high
    assert covered >= 53  # 95% of 60 is 57, two standard errors below are 53.6


def test_where_no_share_explains_how_alike_candidates_are_there_is_no_interval(tmp_path: Path) -> None:
    def mirrored(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": 1.0 + (-1) ** index * {7: 0.5, 42: -0.5}[seed]}  # all means are equal, and no seed agrees

    simulate(tmp_path / "run", mirrored, num_candidates=6, stages=[{"until_step": 10, "num_seeds": 2}], seeds=[7, 42])
    (row,) = seed_variance(read_run(tmp_path / "run"))
    assert row.seed_share.value == 1.0
    assert math.isnan(row.seed_share.low)
    assert math.isnan(row.seed_share.high)


def test_one_seed_has_no_variance_and_a_race_no_candidates(tmp_path: Path) -> None:
    simulate(tmp_path / "one", curve, num_candidates=5, stages=ONE_SEED[:1])
    (row,) = seed_variance(read_run(tmp_path / "one"))
    assert math.isnan(row.seed_share.value)
    stages = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    simulate(tmp_path / "race", curve, unit="member", num_candidates=0, stages=stages)
    race = read_run(tmp_path / "race")
    assert seed_variance(race) == []
    assert matched_steps(race) == []


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_finisher_is_held_against_the_control_at_equal_steps(tmp_path: Path, mode: str) -> None:
    sign = 1.0 if mode == "min" else -1.0

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        slope, own = (0.0, 0.0) if index == 0 else (0.02, {7: -0.1, 42: 0.0, 1337: 0.1}[seed])
        return {"val_loss": sign * (5.0 - slope * (step - 35) + own - step / 10)}

    stages = [{"until_step": 80, "num_seeds": 3}]
    simulate(tmp_path / "run", metrics, mode=mode, num_candidates=1, stages=stages)
    (found,) = matched_steps(read_run(tmp_path / "run"))
    assert found.candidate == "c0001"
    steps = [10, 20, 30, 40, 50, 60, 70, 80]
    assert [point.step for point in found.points] == steps
    assert [len(point.differences) for point in found.points] == [3] * 8
    means = [point.mean for point in found.points]
    assert [mean.value for mean in means] == pytest.approx([-0.02 * sign * (step - 35) for step in steps])
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert [mean.high - mean.value for mean in means] == pytest.approx([half] * 8)
    assert [mean.value - mean.low for mean in means] == pytest.approx([half] * 8)
    assert found.ahead_from == 40
    assert found.clear_from == 50  # from there 0.02 (step - 35) is more than the half width, 0.248


def test_lost_seeds_leave_their_pairs_and_one_pair_has_no_interval(tmp_path: Path) -> None:
    fates = {(1, 7): ("diverge", 60), (1, 42): ("fail", 50)}
    simulate(tmp_path / "run", curve, fates=fates, num_candidates=1, stages=[{"until_step": 80, "num_seeds": 3}])
    (found,) = matched_steps(read_run(tmp_path / "run"))
    assert [len(point.differences) for point in found.points] == [3, 3, 3, 3, 2, 1, 1, 1]
    assert math.isnan(found.points[-1].mean.low)
    assert found.clear_from is None


def test_the_bill_is_that_of_the_search_with_money_where_there_is_a_price(tmp_path: Path) -> None:
    history = simulate(tmp_path / "run", curve, num_candidates=9, resources={"gpu": 0.25})
    run = read_run(tmp_path / "run")
    bill, spent = ledger(run, 4.0), ranking.spent(history)
    assert bill.spent == spent
    assert bill.gpu_hours == pytest.approx(spent.slot_seconds / 3600 / 4)
    assert bill.money == pytest.approx(4.0 * bill.gpu_hours)
    assert sum(stage.steps for stage in bill.stages) == bill.spent.steps
    tested = 0.5 * sum(m.tested is not None for m in run.members.values())
    assert sum(stage.slot_seconds for stage in bill.stages) == pytest.approx(bill.spent.slot_seconds - tested)
    assert ledger(run).money is None
    on_cpu = ledger(replace(run, plan={**run.plan, "resources": {"gpu": 0.0, "price_per_hour": 2.0}}))
    assert (on_cpu.gpu_hours, on_cpu.money) == (0.0, pytest.approx(2.0 * spent.slot_seconds / 3600))


def test_quality_and_what_it_cost(tmp_path: Path) -> None:
    history = simulate(tmp_path / "run", curve, num_candidates=9)
    run = read_run(tmp_path / "run")
    points = quality_against_cost(run)
    values = [p.value for p in points]
    assert values == sorted(values, reverse=True)
    assert values[-1] == min(m.curve.best for c in history.candidates.values() for m in c.members.values())
    assert all(a.total_steps < b.total_steps and a.total_s < b.total_s for a, b in pairwise(points))


def test_everything_has_an_answer_for_a_run_without_anything(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", plan(), []))
    assert importance(run).shares == ()
    assert [g.num_pairs for g in gate_regret(run).gates] == [0, 0]
    assert [math.isnan(row.seed_share.value) for row in seed_variance(run)] == [True] * 3
    assert matched_steps(run) == []
    assert quality_against_cost(run) == []
    bill = ledger(run, 1.0)
    assert (bill.spent.steps, bill.money) == (0, 0.0)
