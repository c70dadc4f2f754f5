"""One member in training: its reports, its log, and what survives crashes and interruptions."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.family import ScriptedTask
from trainables.config import canonical_digest
from trainables.errors import CheckpointError, CheckpointMismatch, DataMissing
from trainables.registry import build_config, get_family
from trainables.worker import checkpoint, member
from trainables.worker.job import MemberJob
from trainables.worker.member import MemberRun
from trainables.worker.report import REPORTS, Evaluated, HandedBack, MemberId
from trainables.worker.report import Tested as ReadOfTest
from trainables.worker.state import Interval, MemberState

FAMILY = "tests.worlds.family:FAMILY"
_LEASES = itertools.count(1)


def job(root: Path, *, config: dict[str, Any] | None = None, **changes: Any) -> MemberJob:
    resolved = build_config(get_family(FAMILY), {"noise": 0.25, **(config or {})})
    fields: dict[str, Any] = {
        "member": MemberId("c0001", 7),
        "family": FAMILY,
        "config": resolved.model_dump(mode="json"),
        "config_digest": resolved.digest(),
        "folder": str(root / "member"),
        "data_dir": str(root),
        "objective": "val_loss",
        "mode": "min",
        "eval_every": 10,
        "gates": (20, 60),
        "stop_request": str(root / "stop"),
        "lease": f"1.{next(_LEASES)}",
    }
    return MemberJob(**{**fields, **changes})


def advance(run: MemberRun) -> Evaluated:
    report = run.advance()
    assert isinstance(report, Evaluated)
    return report


def train(run: MemberRun, until: int) -> list[Evaluated]:
    """Reports up to ``until``."""
    reports = []
    while run.step < until or run._unheard:
        reports.append(advance(run))
    return reports


def timeless(reports: list[Evaluated]) -> list[Evaluated]:
    return [replace(report, train_s=0.0, eval_s=0.0) for report in reports]


def logged(given: MemberJob) -> list[str]:
    return (Path(given.folder) / "train.log").read_text().splitlines()


def kept(given: MemberJob) -> list[int]:
    return [int(p.name.removeprefix("step-")) for p in checkpoint.steps(Path(given.folder) / "checkpoints")]


def linked_step(given: MemberJob, name: str) -> int | None:
    path = checkpoint.linked(Path(given.folder) / "checkpoints", name)
    return int(path.name.removeprefix("step-")) if path else None


def test_a_report_is_the_state_after_a_whole_interval(tmp_path: Path) -> None:
    given = job(tmp_path)
    report = advance(MemberRun(given))
    task = ScriptedTask(build_config(get_family(FAMILY), given.config), seed=7, device="cpu", data_dir=tmp_path)
    losses = [task.step()["train_loss"] for _ in range(10)]
    assert (report.member, report.step, report.diverged) == (given.member, 10, False)
    assert report.metrics == {
        "train_loss": pytest.approx(sum(losses) / 10),
        "lr": 0.1,
        "val_loss": task.evaluate("val")["val_loss"],
        "health": 0.01,
    }
    assert report.train_s > 0
    assert report.eval_s > 0
    assert all(type(value) is float for value in report.metrics.values())
    assert REPORTS.decode(REPORTS.encode(report)) == report


LINE = re.compile(
    r"Step (\d+): val_loss=(-?\d+\.\d{4}|nan) \(best=(-?\d+\.\d{4}|none)\)"
    r" \| train:\d+\.\d steps/s \| int:\d+\.\d steps/s \| elapsed=\d+\.\dm \| stale=(\S+)( \| diverged)?"
)


def test_the_log_has_one_line_an_evaluation(tmp_path: Path) -> None:
    given = job(tmp_path, patience_steps=40, config={"span": 0.0})
    reports = train(MemberRun(given), 60)
    lines = [LINE.fullmatch(line) for line in logged(given)]
    best, best_step = math.inf, 0
    for line, report in zip(lines, reports, strict=True):
        assert line is not None
        value = report.metrics["val_loss"]
        if value < best:
            best, best_step = value, report.step
        assert line.groups() == (
            str(report.step),
            f"{value:.4f}",
            f"{best:.4f}",
            f"{report.step - best_step}/40",
            None,
        )
    assert best_step not in (0, 60)


def test_the_log_of_a_member_that_diverges_at_once(tmp_path: Path) -> None:
    given = job(tmp_path, config={"diverge_at": 3})
    run = MemberRun(given)
    report = advance(run)
    assert (report.step, report.diverged) == (3, True)
    assert math.isnan(report.metrics["train_loss"])
    assert "val_loss" not in report.metrics
    line = LINE.fullmatch(*logged(given))
    assert line is not None
    assert line.groups() == ("3", "nan", "none", "3", " | diverged")
    run.save()
    assert kept(given) == []


def test_an_evaluation_that_is_not_finite_is_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = job(tmp_path)
    run = MemberRun(given)
    train(run, 20)
    before = kept(given)
    monkeypatch.setattr(ScriptedTask, "evaluate", lambda self, split="val": {"val_loss": math.inf, "health": 0.0})
    report = advance(run)
    assert (report.step, report.diverged) == (30, True)
    run.save()
    assert kept(given) == before


def test_the_state_survives_its_checkpoint_whatever_the_numbers(tmp_path: Path) -> None:
    inside = Interval(3, 0.1 + 0.2, {"grad_norm": math.inf, "lr": 1e-5, "odd": math.nan}, {"tokens": 3.0})
    report = Evaluated(MemberId("c0001", 7), 20, {"grad_norm": -math.inf, "odd": math.nan}, 1.0, 2.0)
    state = MemberState(23, 0.1, 10, 3.5, inside, report)
    facts = json.loads(json.dumps(state.to_json(), allow_nan=False))
    assert repr(MemberState.from_json(facts)) == repr(state)
    for wrong in ({"more": 1}, {"step": "23"}, {"interval": {"sums": {"lr": None}}}):
        with pytest.raises(ValueError, match="validation error"):
            MemberState.from_json({**facts, **wrong})


def test_a_norm_that_is_not_finite_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is still sound, so the member goes on, and what it was saved with can be read."""
    take = ScriptedTask.step
    monkeypatch.setattr(ScriptedTask, "step", lambda task: {**take(task), "grad_norm": math.inf})
    given = job(tmp_path)
    (_, last) = train(MemberRun(given), 20)
    again = MemberRun(replace(given, lease="2.1", from_step=10))
    assert again.advance() == last
    assert last.metrics["grad_norm"] == math.inf


@pytest.mark.parametrize(("mode", "noise"), [("min", 0.25), ("max", 0.25)])
def test_the_best_follows_the_mode(tmp_path: Path, mode: str, noise: float) -> None:
    given = job(tmp_path, config={"noise": noise, "span": 0.0}, mode=mode)
    run = MemberRun(given)
    reports = train(run, 60)
    choose = min if mode == "min" else max
    best = choose(reports, key=lambda report: report.metrics["val_loss"])
    assert (run.state.best, run.state.best_step) == (best.metrics["val_loss"], best.step)
    assert linked_step(given, "best") == best.step


def test_what_is_saved_when(tmp_path: Path) -> None:
    improving = job(tmp_path / "a", config={"noise": 0.0})
    train(MemberRun(improving), 60)
    assert kept(improving) == [20, 50, 60]
    assert (linked_step(improving, "latest"), linked_step(improving, "best")) == (60, 60)
    # Rising: nothing is best after the first, only gates are saved, and every 30 steps where the plan says so.
    rising = {"noise": 0.0, "span": -1.0, "floor": 2.0}
    gates = job(tmp_path / "b", config=rising)
    train(MemberRun(gates), 50)
    assert kept(gates) == [10, 20]
    often = job(tmp_path / "c", config=rising, save_every=30)
    train(MemberRun(often), 50)
    assert kept(often) == [10, 20, 30]
    assert linked_step(often, "best") == 10


def whole(root: Path, until: int = 60) -> tuple[MemberJob, list[Evaluated]]:
    given = job(root / "whole")
    return given, train(MemberRun(given), until)


class Interrupts:
    """Lets the stop request appear once the task has taken so many steps in all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, at: list[int]) -> None:
        monkeypatch.setattr(member, "_STOP_POLL_S", 0.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        take = ScriptedTask.step

        def step(task: ScriptedTask) -> dict[str, float]:
            metrics = take(task)
            if at and task._step == at[0]:
                at.pop(0)
                path.touch()
            return metrics

        monkeypatch.setattr(ScriptedTask, "step", step)


@pytest.mark.parametrize("at", [[3], [13, 17], [10], [9, 11, 29, 55], [20, 21]])
def test_interrupted_and_resumed_is_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: list[int]
) -> None:
    _, expected = whole(tmp_path)
    num = len(at)
    given = job(tmp_path / "cut")
    stop = Path(given.stop_request)
    Interrupts(monkeypatch, stop, at)
    reports: list[Evaluated] = []
    interrupted = 0
    run = MemberRun(given)
    while run.step < 60:
        report = run.advance()
        if isinstance(report, Evaluated):
            reports.append(report)
            continue
        interrupted += 1
        assert report == HandedBack(given.member, run.step)
        assert kept(given)[-1] == run.step
        stop.unlink()
        run = MemberRun(replace(given, lease=f"1.{next(_LEASES)}", from_step=reports[-1].step if reports else 0))
    assert interrupted == num
    assert timeless(reports) == timeless(expected)
    assert [p for p in kept(given) if p in (20, 60)] == [20, 60]
    assert all(r.train_s > 0 for r in reports)


@pytest.mark.parametrize("died_at", [4, 10, 14, 20, 27, 30, 59])
def test_after_a_crash_the_curve_is_one_and_the_same(tmp_path: Path, died_at: int) -> None:
    _, expected = whole(tmp_path)
    given = job(tmp_path / "crashed", config={"fail_at": died_at, "fail_marker": str(tmp_path / "failed")})
    run = MemberRun(given)
    heard: dict[int, Evaluated] = {}

    def forever() -> None:
        while True:
            report = advance(run)
            heard[report.step] = report

    with pytest.raises(RuntimeError, match=f"scripted failure at step {died_at}"):
        forever()
    again = MemberRun(replace(given, lease="2.1"))
    assert again.step <= died_at
    for report in train(again, 60):
        assert timeless([heard.setdefault(report.step, report)]) == timeless([report])
    assert timeless([heard[step] for step in sorted(heard)]) == timeless(expected)


def test_a_report_that_was_saved_but_never_heard_is_given_again(tmp_path: Path) -> None:
    """A worker may die between its checkpoint and its report: the gate's own value must not be lost."""
    _, expected = whole(tmp_path)
    given = job(tmp_path / "unheard")
    heard = train(MemberRun(given), 20)[:1]
    heard += train(MemberRun(replace(given, lease="2.1", from_step=10)), 60)[:-1]
    heard += train(MemberRun(replace(given, lease="3.1", from_step=50)), 60)
    assert timeless(heard) == timeless(expected)
    # What was heard is not given again.
    assert isinstance(MemberRun(replace(given, lease="4.1", from_step=60)).advance(), ReadOfTest)


def test_a_corrupt_newest_checkpoint_costs_an_interval_and_nothing_else(tmp_path: Path) -> None:
    _, expected = whole(tmp_path)
    given = job(tmp_path / "corrupt", save_every=10)
    train(MemberRun(given), 40)
    newest = checkpoint.steps(Path(given.folder) / "checkpoints")[-1]
    (newest / checkpoint.STATE).write_bytes(b"torn")
    with pytest.warns(UserWarning, match="step-00000040 is corrupt.*going back to .*step-00000030"):
        run = MemberRun(replace(given, lease="2.1", from_step=40))
    assert (run.step, linked_step(given, "latest")) == (30, 30)
    assert timeless(train(run, 60)) == timeless(expected[3:])
    assert linked_step(given, "latest") == 60


def test_a_link_that_a_crash_left_behind_is_set_right(tmp_path: Path) -> None:
    given = job(tmp_path, config={"noise": 0.0})
    train(MemberRun(given), 30)
    folder = Path(given.folder) / "checkpoints"
    for name in ("best", "latest"):
        checkpoint.point(folder, name, folder / "step-00000020")
    MemberRun(replace(given, lease="2.1", from_step=30))
    assert (linked_step(given, "best"), linked_step(given, "latest")) == (30, 30)


def test_the_test_split_is_read_with_the_best_checkpoint(tmp_path: Path) -> None:
    given = job(tmp_path, config={"noise": 0.0, "span": -1.0, "floor": 2.0})
    reports = train(MemberRun(given), 60)
    for run in (
        MemberRun(replace(given, lease="2.1", from_step=60)),
        MemberRun(replace(given, lease="3.1", purpose="test")),
    ):
        tested = run.advance()
        assert isinstance(tested, ReadOfTest)
        assert tested.step == 10
        assert tested.metrics["val_loss"] == reports[0].metrics["val_loss"]
        assert tested.metrics["test_loss"] == reports[0].metrics["val_loss"] + 0.125


def test_nothing_to_test_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no best checkpoint to test"):
        MemberRun(job(tmp_path, purpose="test")).advance()


def test_another_config_and_another_family_are_refused(tmp_path: Path) -> None:
    given = job(tmp_path)
    train(MemberRun(given), 20)
    with pytest.raises(CheckpointMismatch, match="the member's config is"):
        MemberRun(replace(given, config_digest=canonical_digest("other")))
    again = f"{FAMILY.partition(':')[0]}:AGAIN"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.worlds.family.AGAIN", get_family(FAMILY), raising=False)
        with pytest.raises(CheckpointMismatch, match=rf"family {FAMILY}, expected {again}"):
            MemberRun(replace(given, family=again))


def test_a_full_disk_in_the_middle_leaves_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = whole(tmp_path)
    given = job(tmp_path / "full")
    run = MemberRun(given)
    train(run, 50)
    before = kept(given)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            run.advance()
    assert kept(given) == before
    again = MemberRun(replace(given, lease="2.1", from_step=50))
    begins = again.step // 10
    assert timeless(train(again, 60)) == timeless(expected[begins:])
    assert kept(given)[-1] == 60


def test_a_job_survives_json_and_says_what_it_is(tmp_path: Path) -> None:
    given = job(tmp_path, from_step=1000, until_step=5000)
    assert MemberJob.from_json(given.to_json()) == given
    assert given.label == "family c0001 s7 1k->5k"
    assert replace(given, family="spacing_mdn", from_step=0, until_step=1500).label == "spacing_mdn c0001 s7 0->1.5k"
    assert replace(given, purpose="test").label == "family c0001 s7 test"


def test_a_data_set_that_is_not_there_is_said_by_the_source(tmp_path: Path) -> None:
    from tests.worlds.family import SOURCE

    with pytest.raises(DataMissing, match="data set 'absent' is not in"):
        SOURCE.digest("absent", tmp_path)
