"""A Ray cluster whose nodes go away: the driver waits for another one, but not for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.records import SMALL, decided, finish, make
from tune_rh.errors import RunError
from tune_rh.plan.schema import Resources
from tune_rh.preflight.environment import Node
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs
from tune_rh.run.ray.bridge import Bridge
from tune_rh.run.ray.nodes import Census, ClusterNode
from tune_rh.run.ray.runner import NodeWatch, _StoppedEarly
from tune_rh.run.ray.warm_up import WarmUp
from tune_rh.run.runner import start_session

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bridge(tmp_path: Path) -> Bridge:
    run = runs.open_run(make(tmp_path / "run", **SMALL), tmp_path)
    return Bridge(run, start_session(run, runner="ray", slots=1, views={}), WarmUp(1))


def test_a_minute_without_a_node_is_an_end(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    now, there = 1000.0, True
    monkeypatch.setattr("time.monotonic", lambda: now)
    nodes = [ClusterNode("1", "h1", Node(1), Node(1))]
    watch = NodeWatch(bridge, Census(Resources(), nodes), lambda: nodes if there else [])

    def wait(seconds: int) -> None:
        nonlocal now
        for _ in range(10 * seconds):
            now += 0.1
            watch.on_step_begin(0, [])

    wait(100)
    there = False
    wait(50)
    there = True  # another node has come
    wait(20)
    there = False
    wait(50)
    assert bridge.error is None
    with pytest.raises(RunError, match=r"scripted: no node .* is alive for 6\d s; .* Resume the run"):
        wait(20)
    assert isinstance(bridge.error, RunError)


def test_a_stop_before_the_first_job_waits_for_no_worker(bridge: Bridge) -> None:
    watch = NodeWatch(bridge, None, list)
    watch.on_step_begin(0, [])
    bridge.session.request_stop()
    with pytest.raises(_StoppedEarly):
        watch.on_step_begin(1, [])
    bridge.warm_up.note("trial")  # what runs from here on is saved
    watch.on_step_begin(2, [])


# A head without a core, a node with one; the node is killed once a job has reported.
DRIVER = """
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from tests.worlds.records import SMALL
from tests.worlds.plans import plan
from tune_rh import search
from tune_rh.record.events import Evaluated
from tune_rh.run.ray import runner

runner._LOOK_EVERY_S, runner._NO_NODE_S = 0.2, 1.0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)


def lose(event, history):
    global node
    if isinstance(event, Evaluated) and node is not None:
        cluster.remove_node(node, allow_graceful=False)
        node = None


try:
    small = plan(**{**SMALL, "resources": {}})
    search(small, runs_dir=sys.argv[1], data_dir=".", address=cluster.address, on_event=lose)
except Exception as error:
    print(type(error).__name__, error)
finally:
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)  # the start of a cluster is in it
def test_a_driver_whose_node_has_died_ends_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, "driver.py", str(tmp_path / "runs")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert "NoNodeLeft scripted: no node of the Ray cluster" in done.stdout, done.stdout + done.stderr
    paths = RunPaths(tmp_path / "runs" / "scripted")
    assert runs.replay(paths)[1].ended == "failed"
    assert finish(paths).ended == "finished"
    whole = make(tmp_path / "whole", **{**SMALL, "resources": {}})
    finish(whole)
    assert decided(paths) == decided(whole)
