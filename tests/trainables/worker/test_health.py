"""Live health: each rule fires on its planted fault, once an episode, and on nothing in a healthy trace."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.trainables.worker.test_member import advance, job, train
from trainables.worker import heartbeat, member
from trainables.worker.health import Monitor, TrainingHealth
from trainables.worker.heartbeat import Heartbeat, Memory
from trainables.worker.member import MemberRun
from trainables.worker.report import HealthFinding
from trainables.worker.state import MemberState

HEALTHY = Path(__file__).parent / "healthy.csv.gz"
"""Recorded from a small language model on a CPU: a line a heartbeat, one a step."""


def steps(monitor: Monitor, losses: Iterable[float], norms: Callable[[int], float | None] = lambda step: 1.0) -> None:
    for step, loss in enumerate(losses, start=1):
        monitor.on_step(step, loss, norms(step))


def found(health: TrainingHealth) -> list[tuple[str, int]]:
    return [(finding.rule, finding.step) for finding in health.found]


def beats(
    rates: Sequence[float] = (100.0,),
    memory: Sequence[float | None] = (500.0,),
    retries: Sequence[int] = (0,),
    fallbacks: Sequence[float | None] = (None,),
) -> list[str]:
    """What 3,000 beats with these values find; the last value of each goes on."""
    health = TrainingHealth()
    monitor = Monitor(health)
    for i in range(3000):
        monitor.on_beat(i + 1, *(values[min(i, len(values) - 1)] for values in (rates, memory, retries, fallbacks)))
    return [f"{finding.rule}@{finding.step}" for finding in health.found]


def test_a_healthy_trace_of_5000_beats_finds_nothing() -> None:
    health = TrainingHealth()
    monitor = Monitor(health, device="cpu")
    with gzip.open(HEALTHY, "rt", encoding="ascii") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 5000
    for row in rows:
        step = int(row["step"])
        monitor.on_step(step, row["loss"], row["grad_norm"])
        monitor.on_beat(step, row["tokens_per_s"], row["mem_alloc_mib"], int(row["oom_retries"]))
    assert health.found == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_a_healthy_run_has_finds_nothing(seed: int) -> None:
    rng, health = random.Random(seed), TrainingHealth()
    monitor = Monitor(health)
    for step in range(1, 5001):
        monitor.on_step(step, 8.0 * step**-0.15 + rng.gauss(0.0, 0.1), rng.lognormvariate(0.0, 1.0))
        late = rng.random() < 0.1  # a beat in ten is slow: a neighbour, a page that is read
        monitor.on_beat(step, rng.gauss(100.0, 8.0) * (0.4 if late else 1.0), rng.uniform(500.0, 560.0), 0)
    assert health.found == []


@pytest.mark.parametrize(
    ("losses", "norms"),
    [
        ([2.0] * 49 + [math.nan], lambda step: 1.0),
        ([2.0] * 49 + [math.inf], lambda step: 1.0),
        ([2.0] * 80, lambda step: math.nan if step == 50 else 1.0),
        ([2.0] * 80, lambda step: math.inf if 50 <= step < 60 else 1.0),
    ],
)
def test_h01_fires_on_the_first_number_that_is_not_finite(
    losses: list[float], norms: Callable[[int], float | None]
) -> None:
    health = TrainingHealth()
    steps(Monitor(health), losses, norms)
    assert found(health) == [("H01", 50)]
    assert "non-finite" in health.found[0].message


def test_h01_fires_once_while_few_steps_are_finite_and_again_after_many() -> None:
    health = TrainingHealth()
    bad = {*range(10, 40, 2), 48, 59}
    steps(Monitor(health), [2.0] * 80, lambda step: math.nan if step in bad else None)
    assert found(health) == [("H01", 10), ("H01", 59)]


def test_h02_fires_once_when_the_loss_stays_where_it_is_and_again_after_it_has_fallen() -> None:
    health = TrainingHealth()
    # The mean is at once where the loss is; its first step counts as a minimum.
    steps(Monitor(health), [2.0] * 3000 + [1.0] * 3000)
    assert [rule for rule, _ in found(health)] == ["H02", "H02"]
    first, second = (step for _, step in found(health))
    assert first == 1001
    # 1 + .99^n falls by .005 steps until about n = 530, and by that much in all for the last time.
    assert 4400 < second < 4700
    assert health.found[0].message == "the smoothed loss, 2, has not fallen by 0.005 for 1000 steps"


def test_h02_is_silent_while_the_loss_falls_by_a_little_more_than_it_asks() -> None:
    health = TrainingHealth()
    steps(Monitor(health), [3.0 - 6e-6 * step for step in range(20_000)])
    assert health.found == []
    health = TrainingHealth()
    steps(Monitor(health), [3.0 - 4e-6 * step for step in range(20_000)])
    assert found(health)[0][0] == "H02"


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_h03_fires_when_three_windows_in_a_row_are_off_by_a_tenth(factor: float) -> None:
    off = 100.0 * factor
    assert beats(rates=[100.0] * 400 + [off] * 150) == ["H03@550"]
    assert beats(rates=[100.0] * 400 + [off] * 149 + [100.0]) == ["H03@550"]
    assert beats(rates=[100.0] * 400 + [off] * 100 + [100.0]) == []
    assert beats(rates=[100.0] * 400 + [92.0]) == []
    assert beats(rates=[0.0] * 50 + [100.0]) == []


def test_h03_allows_more_on_a_cpu_whose_cores_are_shared() -> None:
    for rate, expected in ((70.0, []), (50.0, ["H03"]), (145.0, []), (160.0, ["H03"])):
        health = TrainingHealth()
        monitor = Monitor(health, device="cpu")
        for i in range(500):
            monitor.on_beat(i, 100.0 if i < 100 else rate, None, 0)
        assert [finding.rule for finding in health.found] == expected


def test_h03_needs_three_windows_to_end_an_episode_too() -> None:
    slow, fine = [80.0] * 150, [100.0] * 50
    assert beats(rates=[*fine * 2, *slow, *fine, *slow, *fine * 3, *slow, *fine]) == ["H03@250", "H03@750"]


def test_h04_fires_when_the_floor_of_what_is_in_use_grows() -> None:
    # 64 MiB in 500 beats is allowed; a tenth more is not. The first window is left out, and 11 of them are compared.
    leaking = [500.0 + 0.14 * i for i in range(3000)]
    assert beats(memory=leaking) == ["H04@600"]
    assert beats(memory=[500.0 + 0.12 * i for i in range(3000)]) == []
    # Peaks that come back are none, nor is a step up at the start, nor memory that nothing tells of.
    assert beats(memory=[500.0 if i % 7 else 5000.0 for i in range(3000)]) == []
    assert beats(memory=[100.0] * 49 + [900.0]) == []
    assert beats(memory=[None]) == []


def test_h04_fires_again_after_the_floor_has_stood_still() -> None:
    once = [500.0] * 700 + [600.0] * 1000
    assert beats(memory=once) == ["H04@750"]
    assert beats(memory=[*once, 800.0]) == ["H04@750", "H04@1750"]


def test_h05_fires_when_the_allocator_has_to_try_again() -> None:
    assert beats(retries=[0] * 100 + [1]) == ["H05@101"]
    assert beats(retries=[7]) == []
    assert beats(retries=[0] * 100 + [1] * 100 + [2]) == ["H05@101"]
    assert beats(retries=[0] * 100 + [1] * 600 + [2]) == ["H05@101", "H05@701"]


def test_h06_fires_when_a_slower_kernel_steps_in_for_three_beats() -> None:
    assert beats(fallbacks=[0] * 100 + [2]) == ["H06@103"]
    assert beats(fallbacks=[0] * 100 + [2, 2, 0] * 50 + [0]) == []
    assert beats(fallbacks=[1] * 3 + [0, 0, 1] * 50 + [0, 0, 0, 1]) == ["H06@3", "H06@159"]
    assert beats(fallbacks=[None]) == []


def test_a_rule_that_is_off_finds_nothing() -> None:
    health = TrainingHealth()
    steps(Monitor(health, off=("H01", "H02")), [2.0] * 2000, lambda step: math.nan)
    assert health.found == []


# --- in a member --------------------------------------------------------------------------------------------------


FLAT = {"span": 0.0, "noise": 0.0, "floor": 1.0}


def test_a_finding_comes_with_the_next_report_and_stands_in_the_log(tmp_path: Path) -> None:
    run = MemberRun(job(tmp_path, config=FLAT, eval_every=500, gates=(2500,)))
    reports = train(run, 2500)
    expected = HealthFinding("H02", 1001, "the smoothed loss, 1, has not fallen by 0.005 for 1000 steps")
    assert [report.findings for report in reports] == [(), (), (expected,), (), ()]
    log = (tmp_path / "member" / "train.log").read_text().splitlines()
    assert log.count(str(expected)) == 1
    assert log.index(str(expected)) == 2


@pytest.mark.parametrize("interrupt_at", [400, 700, 1000, 1003, 1200])
def test_an_interrupted_member_finds_at_the_same_step_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt_at: int
) -> None:
    monkeypatch.setattr(member, "_STOP_POLL_S", 0.0)
    given = job(tmp_path, config=FLAT, eval_every=500, gates=(2500,))
    run = MemberRun(given)
    steps_taken = 0

    def step() -> object:
        nonlocal steps_taken
        steps_taken += 1
        if steps_taken == interrupt_at:
            (tmp_path / "stop").touch()
        return original()

    original = run.task.step
    run.task.step = step  # type: ignore[method-assign, assignment]
    reports = []
    while not (tmp_path / "stop").exists() and run.step < 2500:
        reports.append(run.advance())
    run.save()
    (tmp_path / "stop").unlink(missing_ok=True)
    again = MemberRun(replace(given, lease="2.1"))
    rest = train(again, 2500)
    findings = [finding for report in (*reports, *rest) for finding in getattr(report, "findings", ())]
    assert [(finding.rule, finding.step) for finding in findings] == [("H02", 1001)]


def test_the_state_of_the_rules_survives_its_json() -> None:
    state = MemberState()
    steps(Monitor(state.health), [2.0] * 1100)
    assert MemberState.from_json(state.to_json()).health == state.health
    assert MemberState.from_json(MemberState().to_json()).health.least == math.inf


# --- heartbeats ---------------------------------------------------------------------------------------------------


def lines(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / "member" / "heartbeat.jsonl").read_text().splitlines()]


def test_a_member_beats_every_few_steps(tmp_path: Path) -> None:
    (tmp_path / "run" / "members").mkdir(parents=True)
    given = job(tmp_path / "run" / "members", beat_every=4)
    advance(MemberRun(given))
    first, second = lines(tmp_path / "run" / "members")
    assert (first["step"], second["step"]) == (4, 8)
    assert list(first) == [field.name for field in fields(Heartbeat)]
    assert (first["run"], first["member"], first["config_digest"]) == ("run", "c0001-s7", given.config_digest)
    assert first["tokens"] is first["fallbacks"] is None
    assert first["lr"] == 0.1
    assert isinstance(first["steps_per_s"], float)
    assert first["steps_per_s"] > 0.0


def test_no_field_speaks_of_mb_or_gb_and_both_units_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "memory", lambda device: Memory(1536.0, 2049.0, 3))
    advance(MemberRun(job(tmp_path, beat_every=10)))
    (beat,) = lines(tmp_path)
    assert [name for name in beat if {"mb", "gb", "megabytes", "gigabytes"} & set(name.lower().split("_"))] == []
    assert (beat["mem_alloc_mib"], beat["mem_alloc_gib"]) == (1536.0, 1.5)
    assert (beat["mem_reserved_mib"], beat["mem_reserved_gib"], beat["oom_retries"]) == (2049.0, 2.0, 3)


def test_a_member_on_a_share_of_a_gpu_says_what_it_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "memory", lambda device: Memory(1024.0, 2048.0, 0))
    monkeypatch.setattr("trainables.worker.member.fence", lambda share: share * 81920 if share < 1 else None)
    advance(MemberRun(job(tmp_path, beat_every=10, device="cuda", gpu_fraction=0.25)))
    (beat,) = lines(tmp_path)
    assert (beat["mem_limit_mib"], beat["mem_limit_gib"]) == (20480.0, 20.0)
    log = (tmp_path / "member" / "train.log").read_text()
    assert log.startswith("20,480 MiB (20.00 GiB) of GPU memory at most: 0.25 of the GPU\n")
    (tmp_path / "whole").mkdir()
    advance(MemberRun(job(tmp_path / "whole", beat_every=10, device="cuda", gpu_fraction=1.0)))
    (beat,) = lines(tmp_path / "whole")
    assert beat["mem_limit_mib"] is beat["mem_limit_gib"] is None


def test_memory_of_this_process_is_told() -> None:
    before = heartbeat.memory("cpu")
    block = bytearray(64 * 2**20)
    after = heartbeat.memory("cpu")
    assert before.allocated_mib is not None
    assert after.allocated_mib is not None
    assert after.reserved_mib is not None
    assert 60.0 < after.allocated_mib - before.allocated_mib < 70.0
    assert after.reserved_mib > 64.0
    del block


def test_numbers_that_are_not_finite_are_spelt_as_in_the_journal(tmp_path: Path) -> None:
    advance(MemberRun(job(tmp_path, config={"diverge_at": 5}, beat_every=5)))
    assert [beat["loss"] for beat in lines(tmp_path)] == ["NaN"]


def test_a_disk_that_takes_no_heartbeat_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "member" / "heartbeat.jsonl").mkdir(parents=True)
    reports = train(MemberRun(job(tmp_path, beat_every=1)), 60)
    assert [report.step for report in reports] == [10, 20, 30, 40, 50, 60]


def test_without_heartbeats_the_rules_on_steps_go_on(tmp_path: Path) -> None:
    run = MemberRun(job(tmp_path, config=FLAT, eval_every=1500, gates=(1500,), beat_every=0))
    assert [finding.rule for finding in advance(run).findings] == ["H02"]
    assert not (tmp_path / "member" / "heartbeat.jsonl").exists()


def test_the_last_beat_is_read_whatever_stands_behind_it(tmp_path: Path) -> None:
    assert heartbeat.last_beat(tmp_path) is None
    advance(MemberRun(job(tmp_path, beat_every=5)))
    folder = tmp_path / "member"
    beat = heartbeat.last_beat(folder)
    assert beat is not None
    assert (beat.step, beat.member) == (10, "c0001-s7")
    with (folder / "heartbeat.jsonl").open("a") as file:
        file.write('{"time": 1')  # a line that is being written
    assert heartbeat.last_beat(folder) == beat
    (folder / "heartbeat.jsonl").write_bytes(b"\xff\n")
    assert heartbeat.last_beat(folder) is None
