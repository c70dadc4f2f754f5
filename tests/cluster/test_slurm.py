"""The script of ``docs/cluster`` on a real Slurm: its job is told that its time is up, is requeued, and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import slurm
from tests.cluster.bed import ROOT, Bed, unavailable, wait_until
from tests.cluster.family import PACE
from tests.cluster.searches import outcome, repeated, words
from tests.worlds.records import of
from tune_rh.record.events import Evaluated, SessionEnded, SessionStarted
from tune_rh.record.journal import RunPaths

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_job_that_runs_out_of_time_is_requeued_and_goes_on(tmp_path: Path, quiet: RunPaths) -> None:
    if reason := unavailable() or slurm.unavailable():
        pytest.skip(reason)
    bed = Bed(tmp_path, {PACE: "0.02"})
    try:
        cluster = slurm.Slurm(bed.hosts[:2], tmp_path)
        folder, log = tmp_path / "search", tmp_path / "job.log"
        plan = words(folder)[1]
        options = ("--parsable", "--cpus-per-task=1", f"--output={log}", "--requeue")
        job = cluster.run(
            "sbatch", *options, str(ROOT / "docs" / "cluster" / "slurm.sh"), plan, "run", str(folder)
        ).strip()
        paths = RunPaths(folder / "runs" / "run")
        wait_until(lambda: paths.journal.exists() and len(of(paths, Evaluated)) > 40, 300.0, "forty reports")
        cluster.run("scancel", "--batch", "--signal=USR1", job)  # what Slurm sends before the end of a job's time
        wait_until(lambda: cluster.state(job).startswith("COMPLETED"), 900.0, "the end of the job")
        assert cluster.state(job) == "COMPLETED 0:0", log.read_text(encoding="utf-8")
        assert [event.reason for event in of(paths, SessionEnded)] == ["interrupted", "finished"]
        assert {event.slots for event in of(paths, SessionStarted)} == {2}
        assert outcome(paths) == outcome(quiet)
        assert repeated(paths) == []
        assert list(folder.glob("token-*")) == []
    finally:
        bed.end()
