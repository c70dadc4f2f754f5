"""`train.log`, where it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.worker.test_member import job, train
from trainables.worker.member import MemberRun


def test_a_log_that_cannot_be_written_costs_its_lines_alone(tmp_path: Path) -> None:
    given = job(tmp_path / "run")
    whole = [report.metrics for report in train(MemberRun(job(tmp_path / "whole")), 40)]
    Path(given.folder).mkdir(parents=True)
    log = Path(given.folder) / "train.log"
    log.symlink_to("/dev/full")
    run = MemberRun(given)
    with pytest.warns(UserWarning, match=r"train\.log: cannot be written \(No space left on device\)") as said:
        reports = train(run, 40)
    assert [report.metrics for report in reports] == whole
    assert len(said) == 1
    log.unlink()
    train(run, 60)
    assert log.read_text().startswith("Step 50")
