"""A job that runs out of GPU memory is on record with the sizes, and tried again on a whole GPU where the plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worlds import family
from tests.worlds.records import decided, finish, make, of, open_search
from trainables.worker.job import MemberJob
from tune_rh.record.events import JobEnded, JobRetried
from tune_rh.run import local_runner
from tune_rh.run.local_runner import LocalRunner

SAID = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.00 GiB is "
    "free. "
    "19.75 GiB allowed; Process 7 has 18.00 GiB memory in use."
)
WORDS = "out of memory: 2,560 MiB (2.50 GiB) asked for, 20,224 MiB (19.75 GiB) allowed, the GPU has 81,050 MiB"


class HungryTask(family.ScriptedTask):
    """Where the scripted task would fail, it runs out of memory."""

    def step(self) -> dict[str, float]:
        try:
            return super().step()
        except RuntimeError:
            raise torch.OutOfMemoryError(SAID) from None


FAMILY = replace(family.FAMILY, task="tests.run.test_oom:HungryTask")
HUNGRY: dict[str, Any] = {
    "family": "tests.run.test_oom:FAMILY",
    "presets": [],
    "num_candidates": 1,
    "seeds": [7],
    "stages": [{"until_step": 40, "num_seeds": 1}],
    "space": "tests.worlds.family:SPACE",
}
FIXED = {"noise": 0.02, "fail_at": 13}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The shares of a GPU that jobs are given, one a try."""
    shares: list[float] = []

    class Run(local_runner.MemberRun):
        def __init__(self, job: MemberJob) -> None:
            if job.purpose == "train":
                shares.append(job.gpu_fraction)
            super().__init__(job)

    monkeypatch.setattr(local_runner, "MemberRun", Run)
    return shares


def control(tmp_path: Path, marker: str, resources: dict[str, Any]) -> tuple[list[JobRetried], list[JobEnded]]:
    """What is on record of the control, which runs out of memory at step 13, each time or but once."""
    fixed = {**FIXED, "fail_marker": str(tmp_path / marker) if marker else ""}
    paths = make(tmp_path / "run", **{**HUNGRY, "fixed": fixed, "resources": resources})
    run, search = open_search(paths)
    LocalRunner(run).run(search)
    return [e for e in of(paths, JobRetried) if e.member.candidate == "c0000"], [
        e for e in of(paths, JobEnded) if e.member.candidate == "c0000"
    ]


def test_memory_that_runs_out_is_a_record_of_its_own_and_counts_as_an_exception(
    tmp_path: Path, given: list[float]
) -> None:
    retried, ended = control(tmp_path, "", {"gpu": 0.25, "max_failures": 1})
    (lost,) = retried
    assert (lost.cause, lost.from_step) == ("oom", 10)
    assert lost.reason.startswith(f"trainables.errors.OutOfMemory: c0000-s7, step 12: {WORDS}")
    assert "test_oom.py:" in lost.reason  # the line of the task
    assert [e.outcome for e in ended] == ["failed"]
    assert WORDS in ended[0].reason
    assert given[:2] == [0.25, 0.25]


def test_a_job_goes_on_alone_on_a_whole_gpu_if_the_plan_says_so(tmp_path: Path, given: list[float]) -> None:
    (lost,), ended = control(tmp_path, "once", {"gpu": 0.25, "max_failures": 0, "whole_gpu_after_oom": True})
    assert lost.cause == "oom"
    assert lost.reason.endswith("; next alone on a whole GPU")
    assert [e.outcome for e in ended] == ["completed", "tested"]
    assert given[:2] == [0.25, 1.0]


def test_a_job_that_runs_out_of_a_whole_gpu_has_failed(tmp_path: Path, given: list[float]) -> None:
    (lost,), ended = control(tmp_path, "", {"gpu": 0.25, "max_failures": 5, "whole_gpu_after_oom": True})
    assert lost.cause == "oom"
    assert [e.outcome for e in ended] == ["failed"]
    assert given[:2] == [0.25, 1.0]


@pytest.mark.parametrize("gpu", [0.0, 1.0])
def test_without_a_share_there_is_no_more_to_be_had(tmp_path: Path, gpu: float) -> None:
    retried, ended = control(tmp_path, "", {"gpu": gpu, "max_failures": 1, "whole_gpu_after_oom": True})
    assert [lost.cause for lost in retried] == ["oom"]
    assert "whole GPU" not in retried[0].reason
    assert [e.outcome for e in ended] == ["failed"]


def test_the_result_is_that_of_a_run_that_had_enough(tmp_path: Path) -> None:
    resources = {"gpu": 0.25, "whole_gpu_after_oom": True}
    marker = tmp_path / "once"
    paths = make(tmp_path / "run", **{**HUNGRY, "fixed": {**FIXED, "fail_marker": str(marker)}, "resources": resources})
    finish(paths)
    assert len(of(paths, JobRetried)) == 1
    quiet = make(tmp_path / "quiet", **{**HUNGRY, "fixed": {**FIXED, "fail_marker": str(marker)}})
    finish(quiet)
    assert of(quiet, JobRetried) == []
    assert decided(paths) == decided(quiet)
