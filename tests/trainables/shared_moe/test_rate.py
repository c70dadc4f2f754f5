"""What a member adds to a report from its clock: tokens per second of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trainables.shared_moe.configs import tiny
from trainables.worker.job import MemberJob
from trainables.worker.member import MemberRun
from trainables.worker.report import Evaluated, HandedBack, MemberId


def member(root: Path, data_dir: Path, **changes: Any) -> MemberRun:
    config = tiny(eval_sequences=1)
    fields: dict[str, Any] = {
        "member": MemberId("c0001", 7),
        "family": "shared_moe",
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest(),
        "folder": str(root / "member"),
        "data_dir": str(data_dir),
        "objective": "eval_loss",
        "mode": "min",
        "eval_every": 4,
        "gates": (8, 40),
        "stop_request": str(root / "stop"),
        "lease": "1.1",
    }
    return MemberRun(MemberJob(**{**fields, **changes}))


def test_a_rate_is_the_growth_of_its_count_over_the_seconds_of_training(tmp_path: Path, pydoc_dir: Path) -> None:
    run = member(tmp_path, pydoc_dir)
    for report in (run.advance(), run.advance()):
        assert isinstance(report, Evaluated)
        assert report.metrics["tokens_per_s"] == pytest.approx(4 * 4 * 16 / report.train_s)


def test_the_interval_that_a_stop_cut_in_two_counts_once(
    tmp_path: Path, pydoc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = member(tmp_path, pydoc_dir)
    run.advance()
    steps, step = iter(range(2)), run.task.step

    def stop_after_two() -> dict[str, float]:
        if next(steps, None) == 1:
            (tmp_path / "stop").touch()
        return dict(step())

    monkeypatch.setattr(run.task, "step", stop_after_two)
    monkeypatch.setattr("trainables.worker.member._STOP_POLL_S", 0.0)
    assert run.advance() == HandedBack(run.job.member, 6)
    (tmp_path / "stop").unlink()
    report = member(tmp_path, pydoc_dir, lease="1.2").advance()
    assert isinstance(report, Evaluated)
    assert report.step == 8
    assert report.metrics["tokens_per_s"] == pytest.approx(4 * 4 * 16 / report.train_s)
