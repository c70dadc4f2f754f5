"""The virtual clock by hand, the policy under it, the command, and what is refused before anything runs."""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tomli_w

from tests.worlds import plans
from tests.worlds.scripted import Simulation
from trainables.worker.report import Report
from tune_rh.cli.commands import simulate as command
from tune_rh.cli.main import main
from tune_rh.decide.scheduler import Finish, RunMember, Wait
from tune_rh.errors import PlanError
from tune_rh.plan.schema import Plan
from tune_rh.record.events import CandidateAdded, Evaluated, Event, JobEnded, JobStarted, MemberId
from tune_rh.record.events import Tested as ReadTest
from tune_rh.simulation.clock import Clock, Conditions, Trace
from tune_rh.simulation.curve_table import Curve, CurveTable, Parameter, load, save
from tune_rh.simulation.regret import prior_regret, rows
from tune_rh.simulation.table_source import clock_for, repeat, simulate, table_session

pytestmark = pytest.mark.usefixtures("no_drawing")

STEPS = np.arange(10, 130, 10)
ONE_WORKER = Conditions()


def curve(seed: int, values: Any, seconds: Any, steps: Any = STEPS) -> Curve:
    return Curve(seed, np.asarray(steps, dtype=np.int64), np.asarray(values, float), np.asarray(seconds, float))


def table(num: int = 20, seeds: int = 3, noise: float = 0.02, mode: Any = "min") -> CurveTable:
    """Falling curves whose level is the distance of a rate from 0.3; each config has a speed of its own."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(0, 1, num)
    sign = 1.0 if mode == "min" else -1.0
    curves = tuple(
        tuple(
            curve(
                100 + s, sign * (abs(rate - 0.3) + np.exp(-STEPS / 40) + rng.normal(0, noise, 12)), STEPS * (1 + rate)
            )
            for s in range(seeds)
        )
        for rate in rates
    )
    configs = tuple({"rate": float(rate)} for rate in rates)
    labels = tuple(f"config {i}" for i in range(num))
    return CurveTable("falling", "loss", mode, "made here", configs, labels, curves, {"rate": Parameter("float", 0, 1)})


def plan(**changes: Any) -> Plan:
    return plans.plan(**{"num_candidates": 12, "sampler": {"name": "random"}, **changes})


class Work(NamedTuple):
    """A job of member ``key``, which follows a curve of the table."""

    key: str
    config: int
    replicate: int
    until_step: int


class Scripted:
    """Hands out given works in order; a member ends where ``stop_at`` says, or at the end of its work."""

    def __init__(self, works: list[Work], stop_at: dict[str, int] | None = None) -> None:
        self.works, self.stop_at = list(works), stop_at or {}
        self.heard: list[tuple[Any, ...]] = []
        self.running: dict[str, Work] = {}

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Finish:
        if not self.works:
            return Finish()
        work = self.works.pop(0)
        self.running[work.key] = work
        return RunMember(MemberId(work.key, 0), 0, work.until_step)

    def on_report(self, report: Report) -> bool:
        assert isinstance(report, Evaluated)
        key, step = report.member.candidate, report.step
        self.heard.append((key, step, report.metrics["loss"], report.train_s))
        return not report.diverged and step not in (self.stop_at.get(key), self.running[key].until_step)

    def on_failure(self, member: MemberId, error: str) -> None:
        self.heard.append((member.candidate, "failed"))

    def place(self, member: MemberId) -> tuple[int, int]:
        work = self.running[member.candidate]
        return work.config, work.replicate

    def incumbent(self) -> int | None:
        return None


def run(tuner: Scripted, curves: CurveTable, conditions: Conditions = ONE_WORKER) -> Trace:
    return Clock(curves, 10, [120], conditions).run(tuner, tuner)


def by_hand() -> CurveTable:
    speeds = {"a": 10.0, "b": 15.0, "c": 4.0}
    curves = tuple(
        (curve(0, [level + 1, level], [speed, 2 * speed], [10, 20]),)
        for level, speed in enumerate(speeds.values(), start=1)
    )
    return CurveTable("by hand", "loss", "min", "made here", ({}, {}, {}), tuple(speeds), curves)


def points(trace: Trace) -> list[tuple[float, ...]]:
    return list(zip(trace.seconds.tolist(), trace.steps.tolist(), trace.busy.tolist(), strict=True))


def test_the_clock_by_hand() -> None:
    tuner = Scripted([Work(key, i, 0, 20) for i, key in enumerate("abc")])
    trace = run(tuner, by_hand(), Conditions(workers=2))
    assert points(trace) == [(10, 10, 2), (15, 20, 2), (20, 30, 2), (24, 40, 2), (28, 50, 1), (30, 60, 0)]
    assert trace.idle == pytest.approx(2 / 60)
    assert tuner.heard == [
        ("a", 10, 2.0, 10.0),
        ("b", 10, 3.0, 15.0),
        ("a", 20, 1.0, 10.0),
        ("c", 10, 4.0, 4.0),
        ("c", 20, 3.0, 4.0),
        ("b", 20, 2.0, 15.0),
    ]


def test_a_member_goes_on_from_where_it_stands_and_a_stopped_one_frees_its_worker() -> None:
    works = [Work("b", 1, 0, 10), Work("a", 0, 0, 20), Work("b", 1, 0, 20), Work("c", 2, 0, 10)]
    trace = run(Scripted(works, {"a": 10}), by_hand())
    assert points(trace) == [(15, 10, 1), (25, 20, 1), (40, 30, 1), (44, 40, 0)]


def test_a_job_pays_to_start_unless_its_member_is_in_memory() -> None:
    kept = [Work("a", 0, 0, 10), Work("a", 0, 0, 20)]
    assert run(Scripted(kept), by_hand(), Conditions(overhead_s=3)).seconds[-1] == 3 + 20
    apart = [Work("a", 0, 0, 10), Work("b", 1, 0, 10), Work("a", 0, 0, 20)]
    assert run(Scripted(apart), by_hand(), Conditions(overhead_s=3)).seconds[-1] == 3 * 3 + 35


def test_a_failed_stretch_is_paid_again_and_ends_the_member_after_its_retries() -> None:
    tuner = Scripted([Work("a", 0, 0, 20)])
    trace = run(tuner, by_hand(), Conditions(failures=0.999999, max_failures=2, overhead_s=1))
    assert points(trace) == [(11, 10, 1), (22, 20, 1), (33, 30, 0)]
    assert tuner.heard == [("a", "failed")]


def test_a_lost_curve_reports_once_that_it_diverged() -> None:
    lost = curve(0, [1.0, math.nan], [1, 2], [10, 15])
    whole = curve(0, [1.0, 0.5, 0.4], [1, 2, 3], [10, 15, 20])
    curves = CurveTable("lost", "loss", "min", "made here", ({}, {}), ("a", "b"), ((lost,), (whole,)))
    tuner = Scripted([Work("a", 0, 0, 20)])
    run(tuner, curves)
    assert [heard[:2] for heard in tuner.heard] == [("a", 10), ("a", 20)]
    assert math.isnan(tuner.heard[1][2])


def test_values_are_reported_as_the_table_has_them() -> None:
    works = [Work("x", 3, 0, 120)]
    low, high = Scripted(works), Scripted(works)
    run(low, table())
    run(high, table(mode="max"))
    assert [(*heard[:2], -heard[2], heard[3]) for heard in high.heard] == low.heard


def traces(seed: int = 0, conditions: Conditions | None = None, **changes: Any) -> Trace:
    return simulate(plan(**changes), table(), conditions or Conditions(workers=4), seed)


def test_the_same_seed_gives_the_same_search_and_another_one_does_not() -> None:
    rough = Conditions(workers=4, failures=0.05, stragglers=0.5, overhead_s=2)
    first, again, other = (traces(seed, rough) for seed in (1, 1, 2))
    for name in ("seconds", "steps", "regret", "busy"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.seconds.tolist() != other.seconds.tolist()


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_without_noise_a_search_of_everything_finds_the_best(sampler: str) -> None:
    curves = table(noise=0.0)
    wanted = plan(num_candidates=20, control="", space="tests.worlds.family:SPACE", sampler={"name": sampler})
    (trace,) = repeat(wanted, curves, Conditions(workers=1), repeats=1)
    assert trace.regret[-1] == 0
    assert np.isfinite(trace.regret).all()


def test_the_budget_ends_a_search() -> None:
    trace = traces(conditions=Conditions(workers=4, max_steps=500))
    assert trace.steps[-1] == 500
    assert traces().steps[-1] > 500


class Watched:
    """A session on a table that is watched: which jobs run, and whether a worker was left without one in vain."""

    def __init__(self, curves: CurveTable, conditions: Conditions = ONE_WORKER, seed: int = 0, **changes: Any) -> None:
        searched = plan(**changes)
        self.clock = clock_for(searched, curves, conditions, seed)
        self.events: list[Event] = []
        self.session, self.source = table_session(searched, curves, self.clock, seed, self.events.append)
        self.history, self.answer = self.session.history, None
        self.trace = self.clock.run(self, self.source)

    def next_job(self, prefer: MemberId | None = None) -> RunMember | Wait | Finish:
        self.answer = self.session.next_job(prefer)
        return self.answer

    def on_report(self, report: Report) -> bool:
        num = len(self.history.running)
        assert num == self.clock.slots or isinstance(report, ReadTest) or isinstance(self.answer, Wait | Finish)
        return self.session.on_report(report)

    def on_failure(self, member: MemberId, error: str) -> None:
        self.session.on_failure(member, error)


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_no_worker_is_idle_unless_the_policy_has_nothing_for_it(workers: int) -> None:
    watched = Watched(table(), Conditions(workers=workers))
    assert 0 < watched.trace.busy.max() <= workers
    assert isinstance(watched.answer, Finish)


def essence(event: Event) -> tuple[Any, ...]:
    match event:
        case CandidateAdded():
            return "added", event.candidate, event.origin
        case JobStarted():
            return "started", event.member, event.stage, event.until_step, event.purpose
        case Evaluated():
            return "reported", event.member, event.step, event.metrics["loss"], event.diverged
        case ReadTest():
            return "tested", event.member, event.step
        case JobEnded():
            return "ended", event.member, event.outcome
        case _:
            return (event,)


def test_one_worker_decides_as_a_search_that_is_driven_directly() -> None:
    curves = table()
    watched = Watched(curves, seed=3)

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        config, replicate = watched.source.place(MemberId(f"c{index:04d}", seed))
        return {"loss": curves.values[config][replicate, curves.steps.index(step)]}

    direct = Simulation(watched.session.plan, metrics).run()
    assert [essence(e) for e in watched.events[1:]] == [essence(e) for e in direct.events[1:]]
    assert any(e.stage > 0 for e in watched.events if isinstance(e, JobStarted))


def test_common_seeds_stay_common_and_seeds_of_a_config_differ() -> None:
    curves = table()
    watched = Watched(curves, seed=5)
    ids: dict[int, set[int]] = {}
    for event in watched.events:
        if isinstance(event, JobStarted):
            config, replicate = watched.source.place(event.member)
            ids.setdefault(event.member.seed, set()).add(curves.curves[config][replicate].seed)
    assert all(len(found) == 1 for found in ids.values())
    assert len(set.union(*ids.values())) == len(ids) == 3


def test_no_config_is_tried_twice_whatever_draws_them() -> None:
    for sampler in ("random", "tpe"):
        watched = Watched(table(), Conditions(workers=4), seed=2, sampler={"name": sampler})
        tried = [watched.source.config_of(name) for name in watched.history.candidates]
        assert len(tried) == len(set(tried)) == 13


def test_rows_and_their_interval() -> None:
    def trace(regret: list[float]) -> Trace:
        steps = np.arange(10.0, 50.0, 10.0)
        return Trace(steps, steps, np.array(regret), np.ones(4), 0.0, np.ones(4))

    both = [trace([math.nan, 3, 2, 1]), trace([math.nan, 5, 4, 1])]
    start, half, end = rows(both, budget=40, prior=9.0, fractions=(0.1, 0.5, 1.0))
    assert [row.regret.value for row in (start, half, end)] == [9.0, 4.0, 1.0]
    assert half.regret[1:] == (0.0, pytest.approx(4 + 12.706 * math.sqrt(2) / math.sqrt(2), abs=1e-3))
    assert math.isnan(rows(both[:1], 40, 9.0, (1.0,))[0].regret.low)


REFUSED = [
    (
        {"stages": [{"until_step": 50, "num_seeds": 2}, {"until_step": 5000, "num_seeds": 3}]},
        {},
        r"stages\[1\].until_step = 5000 is not among the steps of falling: 10, 20, .*, 120",
    ),
    ({"seeds": [1, 2, 3, 4]}, {}, "seeds are 4: 1, 2, 3, 4; config 'config 0' of falling has 3 replicates"),
    ({"num_candidates": 20}, {}, "num_candidates = 20, and a control: falling has 20 configs"),
    ({"sampler": {"name": "grid"}}, {}, "sampler.name = 'grid': on recorded configs it is random, tpe or"),
    ({}, {"repeats": 0}, "repeats = 0: at least 1"),
]


@pytest.mark.parametrize(("changes", "arguments", "message"), REFUSED, ids=lambda x: str(x)[:20])
def test_what_the_table_cannot_give_is_refused_by_name(
    changes: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        next(repeat(plan(**changes), table(), Conditions(), **{"repeats": 1, **arguments}))


def test_a_curve_without_a_reading_is_refused_by_name() -> None:
    short = curve(100, [1.0, 0.5], [1, 2], [10, 120])
    curves = table()
    holed = CurveTable(
        "holed",
        "loss",
        "min",
        "",
        curves.configs,
        curves.labels,
        (*curves.curves[:-1], (short, *curves.curves[-1][1:])),
        curves.parameters,
    )
    with pytest.raises(
        PlanError, match="eval_every = 10: config 'config 19', seed 100 of holed has no reading at step 20"
    ):
        next(repeat(plan(), holed, Conditions(), 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", 0), ("max_steps", 0), ("failures", 1.0), ("stragglers", -1), ("overhead_s", math.inf)],
)
def test_conditions_are_checked(name: str, value: Any) -> None:
    with pytest.raises(PlanError, match=f"{name} = {value}"):
        Conditions(**{name: value})


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def test_the_command_prints_regret_and_writes_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, curves, out = tmp_path / "plan.toml", tmp_path / "curves.parquet", tmp_path / "points.csv"
    path.write_text(tomli_w.dumps(plans.fields(num_candidates=12, sampler={"name": "random"})))
    save(table(seeds=4), curves)
    words = [str(path), "--curves", str(curves), "--workers", "3", "--repeats", "2", "--csv", str(out)]
    assert call(*words) == 0
    said = capsys.readouterr().out
    assert "2 searches on falling (loss, 20 configs)" in said
    assert "Slots idle" in said
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert {line["repeat"] for line in lines} == {"0", "1"}
    expected = list(repeat(plan(), load(curves), Conditions(workers=3), 2))
    last = [line for line in lines if line["repeat"] == "1"][-1]
    assert float(last["regret"]) == pytest.approx(expected[1].regret[-1], rel=1e-5)
    assert last["busy"] == "0"


def test_the_command_leaves_out_what_ends_early_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = tmp_path / "plan.toml", tmp_path / "curves.parquet"
    path.write_text(tomli_w.dumps(plans.fields(num_candidates=12, sampler={"name": "random"})))
    whole = table()
    cut = tuple(tuple(c.until(60) for c in replicates) for replicates in whole.curves[:4])
    kept = (*cut, *whole.curves[4:])
    save(CurveTable("cut", "loss", "min", "", whole.configs, whole.labels, kept, whole.parameters), file)
    assert call(str(path), "--curves", str(file), "--repeats", "1") == 0
    said = capsys.readouterr().out
    assert "4 of 20 configs are left out" in said
    assert "16 configs)" in said


def test_the_curves_of_a_run_can_be_searched_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = tmp_path / "plan.toml", tmp_path / "curves.parquet"
    path.write_text(tomli_w.dumps(plans.fields()))
    runs = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["search", str(path), "--runner", "local", *runs, "--data-dir", str(tmp_path / "data")]) == 0
    assert call("--record", "scripted", "--curves", str(file), *runs) == 0
    assert "of 10 configs, to step 120" in capsys.readouterr().out
    words = [str(path), "--curves", str(file), "--set", "num_candidates=1", "--repeats", "2"]
    assert call(*words) == 0
    assert "2 searches on scripted (val_loss" in capsys.readouterr().out


def test_the_command_wants_a_plan_or_a_run(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="a plan is missing"):
        call("--curves", str(tmp_path / "x"))
    with pytest.raises(PlanError, match="leave the plan out"):
        call("some.toml", "--record", "run", "--curves", str(tmp_path / "x"))


def test_prior_regret_is_that_of_the_median_config() -> None:
    curves = table()
    assert prior_regret(curves) == pytest.approx(float(np.median(curves.truth) - curves.truth.min()))
