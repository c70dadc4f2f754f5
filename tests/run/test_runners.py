"""Both runners give the same records for the same plan; and what Ray adds: slots, retries of lost workers."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray.util.state import list_actors, list_jobs

from tests.worlds.records import decided, events, finish, make, of, open_search, records, steps_heard
from tune_rh.record.events import (
    CandidateAdded,
    Evaluated,
    Event,
    JobEnded,
    JobStarted,
    MemberId,
    SessionEnded,
    SessionStarted,
)
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths

if TYPE_CHECKING:
    from tune_rh.run.ray.cluster import Cluster

# The start of the cluster is not part of the limit; that of the workers is, which load torch on cores they share.
pytestmark = pytest.mark.timeout(300, func_only=True)

PLAN: dict[str, Any] = {
    "num_candidates": 3,
    "presets": ["good", "diverging"],
    "seeds": [7, 42],
    "stages": [{"until_step": 20, "num_seeds": 1}, {"until_step": 40, "num_seeds": 2}],
    "sampler": {"startup": 2},
    "fixed": {"noise": 0.02},
    "resources": {"max_failures": 1},
}


def finish_on_ray(paths: RunPaths, slots: int = 1, stop_after: int = 0) -> History:
    """Run to the end on the cluster that is connected (or ask for a stop after so many events)."""
    from tune_rh.run.ray.runner import RayRunner

    run, search = open_search(paths, slots=slots, runner="ray")
    count = 0

    def watch(_event: Event) -> None:
        nonlocal count
        count += 1
        if count == stop_after:
            search.request_stop()

    search.listeners.append(watch)
    RayRunner(run, slots).run(search)
    search.close("interrupted" if search.stopping else "finished")
    return search.history


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The plan as the runner without Ray runs it."""
    paths = make(tmp_path_factory.mktemp("local") / "run", **PLAN)
    finish(paths)
    return paths


def test_the_same_plan_gives_the_same_records_in_process_and_on_ray(
    tmp_path: Path, in_process: RunPaths, ray_cluster: Cluster
) -> None:
    paths = make(tmp_path / "run", **PLAN)
    finish_on_ray(paths)
    assert records(paths) == records(in_process)
    assert [type(e) for e in events(paths)] == [type(e) for e in events(in_process)]
    (started,) = of(paths, SessionStarted)
    assert (started.runner, started.slots) == ("ray", 1)
    actors = list_actors(address=ray_cluster.dashboard, detail=True)
    assert f"scripted worker 1 on {socket.gethostname()}" in {actor.repr_name for actor in actors}
    (driver,) = list_jobs(address=ray_cluster.dashboard, detail=True)
    assert driver.metadata["job_name"].startswith("tune-rh ")


@pytest.mark.usefixtures("ray_cluster")
def test_stopped_on_ray_and_finished_in_process(tmp_path: Path, in_process: RunPaths) -> None:
    paths = make(tmp_path / "run", **PLAN)
    history = finish_on_ray(paths, stop_after=9)
    assert history.running == {}
    assert of(paths, SessionEnded)[-1].reason == "interrupted"
    finish(paths)
    assert decided(paths) == decided(in_process)
    assert set(Counter((e.member, e.step) for e in of(paths, Evaluated)).values()) == {1}


@pytest.mark.usefixtures("ray_cluster")
def test_the_signal_that_ends_tunes_loop_ends_the_session_instead(tmp_path: Path, in_process: RunPaths) -> None:
    """Tune takes SIGUSR1 for its own; what batch systems send before the end of a job's time must save what runs."""
    from tune_rh.run.ray.runner import RayRunner

    paths = make(tmp_path / "run", **PLAN)
    run, search = open_search(paths, runner="ray")
    search.listeners.append(
        lambda event: os.kill(os.getpid(), signal.SIGUSR1) if isinstance(event, Evaluated) else None
    )
    before = signal.signal(signal.SIGUSR1, lambda *_: search.request_stop())
    try:
        RayRunner(run, 1).run(search)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert search.stopping
    search.close("interrupted")
    assert [event.outcome for event in of(paths, JobEnded)] == ["interrupted"]
    finish(paths)
    assert decided(paths) == decided(in_process)


@pytest.mark.usefixtures("ray_cluster")
def test_a_loop_of_tunes_that_ends_early_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tune_rh.errors import RunError
    from tune_rh.run.ray.runner import RayRunner

    monkeypatch.setattr("ray.tune.Tuner.fit", lambda tuner: None)
    run, search = open_search(make(tmp_path / "run", **PLAN), runner="ray")
    with pytest.raises(RunError, match="scripted: Ray Tune ended before the search did; resume the run"):
        RayRunner(run, 1).run(search)


def losses(tmp_path: Path, **fixed: Any) -> dict[str, Any]:
    """The plan with members that fail as ``fixed`` says; their curves are those of the plan."""
    return {**PLAN, "presets": [], "fixed": {"noise": 0.02, **fixed}}


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_is_killed_is_tried_again_and_nothing_differs(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", **losses(tmp_path))
    finish(plain)
    died, raised = tmp_path / "died-once", tmp_path / "raised-once"
    raised.touch()  # it is to be killed only
    fixed = {"fail_at": 13, "fail_marker": str(raised), "die_marker": str(died)}
    paths = make(tmp_path / "run", **losses(tmp_path, **fixed))
    finish_on_ray(paths)
    assert died.exists()
    one, two = decided(plain), decided(paths)
    assert len(one.pop("candidates")) == len(two.pop("candidates"))
    assert two == one
    assert {e.outcome for e in of(paths, JobEnded)} == {"parked", "completed", "tested"}
    assert sorted(set(steps_heard(paths, MemberId("c0000", 7)))) == [10, 20, 30, 40]


@pytest.mark.usefixtures("ray_cluster")
def test_a_member_that_fails_is_recorded_and_the_rest_goes_on_in_both_slots(tmp_path: Path) -> None:
    changes = {**PLAN, "presets": ["failing", "good"], "num_candidates": 4, "fixed": {"noise": 0.02, "step_s": 0.02}}
    paths = make(tmp_path / "run", **changes)
    history = finish_on_ray(paths, slots=2)
    (failing,) = [e.candidate for e in of(paths, CandidateAdded) if e.label == "failing"]
    lost = {str(m.id): m.status for c in history.candidates.values() for m in c.members.values() if m.lost}
    assert lost == {f"{failing}-s7": "failed"}
    (ended,) = [e for e in of(paths, JobEnded) if e.outcome == "failed"]
    assert "scripted failure at step 5" in ended.reason
    assert history.incomplete == [0, 0]
    assert history.running == {}
    assert any(c.stage == 1 for c in history.candidates.values() if c.index)
    running: set[MemberId] = set()
    most = 0
    for event in events(paths):
        if isinstance(event, JobStarted):
            running.add(event.member)
        elif isinstance(event, JobEnded):
            running.discard(event.member)
        most = max(most, len(running))
    assert most == 2


def test_slots_are_what_the_cluster_has_room_for(ray_cluster: Cluster) -> None:
    import ray

    from tune_rh.errors import PreflightRefused
    from tune_rh.plan.schema import Resources
    from tune_rh.run.ray.cluster import count_slots

    cores = int(ray.cluster_resources()["CPU"])
    assert ray_cluster.slots == count_slots(Resources()).slots == cores
    assert ray_cluster.dashboard.startswith("http://127.0.0.1:")
    assert count_slots(Resources(slots=1)).slots == 1
    assert count_slots(Resources(cpu=cores)).slots == 1
    with pytest.raises(PreflightRefused, match=rf"resources\.cpu = {cores + 1}.* no node of the cluster can ever"):
        count_slots(Resources(cpu=cores + 1))
    with pytest.raises(PreflightRefused, match=r"resources\.gpu = 1: no node"):
        count_slots(Resources(gpu=1.0))
