"""A try of a job that is lost on Ray is on record with its cause, and the curve goes on as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from tests.run.test_runners import PLAN, finish_on_ray
from tests.worlds.records import decided, finish, make, of
from trainables.errors import OutOfMemory
from tune_rh.record.events import Evaluated, JobEnded, JobRetried, LossCause, MemberId
from tune_rh.record.journal import RunPaths
from tune_rh.run.ray.losses import _cause

ROOT = Path(__file__).parents[3]
FIXED = {"noise": 0.02, "fail_at": 13}


def same_result(one: RunPaths, two: RunPaths) -> bool:
    """Whether two runs came to the same, whatever their configs say about failures."""
    first, second = decided(one), decided(two)
    assert len(first.pop("candidates")) == len(second.pop("candidates"))
    return first == second


def num_repeated(paths: RunPaths) -> int:
    """Reports that stand in the journal more than once."""
    return sum(number - 1 for number in Counter((e.member, e.step) for e in of(paths, Evaluated)).values())


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300, func_only=True)  # workers load torch on cores that they share
@pytest.mark.parametrize(("cause", "marker", "max_failures"), [("exception", "fail", 1), ("actor", "die", 0)])
def test_the_cause_of_a_loss_is_on_record(tmp_path: Path, cause: LossCause, marker: str, max_failures: int) -> None:
    """The worker raises, or kills itself; where the worker is lost the member is not to blame."""
    there = tmp_path / "there"
    there.touch()
    markers = {"fail_marker": str(there), "die_marker": str(there), f"{marker}_marker": str(tmp_path / "once")}
    changes: dict[str, Any] = {**PLAN, "presets": [], "resources": {"max_failures": max_failures}}
    paths = make(tmp_path / "run", **{**changes, "fixed": {**FIXED, **markers}})
    finish_on_ray(paths)
    (lost,) = of(paths, JobRetried)
    assert (lost.member, lost.from_step, lost.cause) == (MemberId("c0000", 7), 10, cause)
    assert lost.node == os.uname().nodename
    assert lost.pid > 0
    assert ("scripted failure at step 13" in lost.reason) == (cause == "exception")
    assert num_repeated(paths) == 0
    quiet = make(tmp_path / "quiet", **{**changes, "fixed": {"noise": 0.02}})
    finish(quiet)
    assert same_result(paths, quiet)


def test_memory_that_runs_out_is_a_cause_of_its_own() -> None:
    for raised, cause in ((OutOfMemory("no memory"), "oom"), (RuntimeError("no memory"), "exception")):
        error = RayTaskError("train", "a traceback", raised).as_instanceof_cause()
        assert _cause(error, "") == cause


# Three nodes of a core, of which one at a time has the only worker: one is drained under it, the next one dies.
DRIVER = """
import sys
import time

import ray
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from tests.run.ray.test_losses import PRIVATE
from tests.worlds.plans import plan
from tune_rh import search
from tune_rh.record.events import Evaluated, JobRetried

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=1) for _ in range(3))}
state, left = "quiet", set()


def disturb(event, history):
    global state
    busy = {actor["Address"]["NodeID"] for actor in ray._private.state.actors().values() if actor["State"] == "ALIVE"}
    if isinstance(event, JobRetried):
        state = f"{state}, then {event.cause}"
    elif isinstance(event, Evaluated) and state == "quiet":
        (node,) = busy
        left.add(node)
        client = ray._private.worker.global_worker.gcs_client
        deadline_ms = int(time.time() * 1000) + 600_000
        state = "drained" if client.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "", deadline_ms)[0] else "refused"
    elif isinstance(event, Evaluated) and state == "drained, then preempted" and event.step % 40 == 10:
        (node,) = busy
        left.add(node)
        state = "killed"
        cluster.remove_node(nodes[node], allow_graceful=False)


try:
    search(plan(**PRIVATE), runs_dir=sys.argv[1], data_dir=".", address=cluster.address, on_event=disturb)
    print(state, "on", len(left), "nodes")
finally:
    cluster.shutdown()
"""
PRIVATE: dict[str, Any] = {
    "presets": ["good"],
    "num_candidates": 1,
    "seeds": [7, 42],
    "stages": [{"until_step": 40, "num_seeds": 2}, {"until_step": 80, "num_seeds": 2}],
    "fixed": {"noise": 0.02, "step_s": 0.1},
    "resources": {"slots": 1, "max_failures": 0},
}


@pytest.mark.slow
@pytest.mark.timeout(300)  # the start of a cluster is in it
def test_nodes_that_leave_and_nodes_that_die_cost_no_member(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, "driver.py", str(tmp_path / "runs")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "killed, then node on 2 nodes" in done.stdout, done.stdout + done.stderr
    paths = RunPaths(tmp_path / "runs" / "scripted")
    first, second = of(paths, JobRetried)
    assert (first.cause, second.cause) == ("preempted", "node")
    assert num_repeated(paths) == 0
    assert {e.outcome for e in of(paths, JobEnded)} == {"parked", "completed", "tested"}
    quiet = make(tmp_path / "quiet", **{**PRIVATE, "fixed": {"noise": 0.02}})
    finish(quiet)
    assert same_result(paths, quiet)
