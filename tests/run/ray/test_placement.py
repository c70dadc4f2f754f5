"""Jobs go to the nodes that have what their plan asks for; a plan that asks for what no node has is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.run.ray.test_nodes import driven
from tests.run.test_oom import FIXED, HUNGRY
from tests.worlds.plans import plan
from tests.worlds.records import SMALL, curves, finish, make, of
from trainables.api import Finding
from trainables.worker.job import MemberJob
from tune_rh.decide.mistakes import MISTAKE
from tune_rh.decide.scheduler import Wait
from tune_rh.preflight.environment import Node
from tune_rh.record.events import JobEnded, JobRetried, JobStarted, SessionStarted, SlotsChanged
from tune_rh.run import runs
from tune_rh.run.ray.bridge import Bridge
from tune_rh.run.ray.nodes import Census, ClusterNode
from tune_rh.run.ray.warm_up import WarmUp
from tune_rh.run.runner import start_session
from tune_rh.run.session import Loss

# A head without a core, a node with more of everything but what is asked for, and one with room for two jobs.
DRIVER = """
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from tests.run.ray.test_placement import PLACED
from tests.worlds.plans import plan
from tune_rh import search
from tune_rh.errors import PreflightRefused
from tune_rh.record.events import Evaluated

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=4, memory=8 * 2**30, labels={"market": "demand"}, resources={"fpga": 8})
wanted = cluster.add_node(num_cpus=2, memory=5 * 2**29, labels={"market": "spot"}, resources={"fpga": 5})
places = {"runs_dir": sys.argv[1], "data_dir": ".", "address": cluster.address}
used = set()


def look(event, history):
    if isinstance(event, Evaluated):
        used.update(a["Address"]["NodeID"] for a in ray._private.state.actors().values() if a["State"] == "ALIVE")


try:
    search(plan(**PLACED), **places, on_event=look)
    assert used == {wanted.node_id}, used
    for asked in ({"labels": {"market": "gold"}}, {"custom": {"fpga": 9}}, {"memory_gib": 9}):
        try:
            search(plan(**{**PLACED, "name": "refused", "resources": asked}), **places)
        except PreflightRefused as error:
            print(error, file=Path("refused.txt").open("a"))
finally:
    cluster.shutdown()
"""
PLACED: dict[str, Any] = {
    **SMALL,
    "resources": {"cpu": 0.5, "memory_gib": 1.25, "custom": {"fpga": 2}, "labels": {"market": "spot"}},
}


@pytest.mark.slow
@pytest.mark.timeout(400)  # the start of a cluster is in it
def test_jobs_are_placed_where_all_that_they_ask_for_is(tmp_path: Path) -> None:
    paths = driven(tmp_path, DRIVER)
    assert [e.slots for e in of(paths, SessionStarted, SlotsChanged)] == [2]
    said, host = (tmp_path / "refused.txt").read_text(), os.uname().nodename
    for line in (
        "resources.labels.market = 'gold': no node of the cluster can ever give that to a job; they have",
        f"'demand' ({host})",
        f"'spot' ({host})",
        "resources.custom.fpga = 9: no node",
        "resources.memory_gib = 9: no node",
    ):
        assert line in said
    assert not (tmp_path / "runs" / "refused").exists()


GPUS: dict[str, Any] = {
    **HUNGRY,
    "presets": ["good"],
    "seeds": [7, 42, 1337],
    "stages": [{"until_step": 80, "num_seeds": 3}],
    "fixed": {**FIXED, "step_s": 0.05},
    "resources": {"gpu": 0.25, "max_failures": 0, "whole_gpu_after_oom": True},
}


def test_nothing_else_starts_while_a_job_waits_for_a_whole_gpu(tmp_path: Path) -> None:
    fault = Finding(MISTAKE, "task", "a fault of its own")  # accepted: that the control fails would stop the run
    run = runs.open_run(runs.create(plan(**GPUS), tmp_path / "run", tmp_path, accepted=[fault]), tmp_path)
    there = ClusterNode("1", "h1", Node(8, 1), Node(8, 1))
    census = Census(run.plan.resources, [there])
    bridge = Bridge(run, start_session(run, runner="ray", slots=4, views={}), WarmUp(4), census)

    def look(node: ClusterNode) -> int:
        """Slots after two looks, as the session has them."""
        for _ in range(2):
            bridge.on_nodes(census.look([node]))
        return bridge.session.history.slots

    first, second = (bridge.suggest(name) for name in ("a", "b"))
    assert isinstance(first, MemberJob)
    assert isinstance(second, MemberJob)
    bridge.lost("a", lambda: Loss("oom", "no memory"))
    again = bridge.suggest("c")
    assert isinstance(again, MemberJob)
    assert (again.member, again.gpu_fraction) == (first.member, 1.0)
    assert again.lease != first.lease
    assert look(there) == 4
    assert isinstance(bridge.suggest("d"), Wait)  # although three slots are free
    bridge.lost("b", lambda: Loss("exception", "a fault of its own"))
    assert isinstance(bridge.suggest("d"), Wait)
    assert look(replace(there, num_alone=1)) == 1
    assert isinstance(bridge.suggest("d"), Wait)  # now for want of a slot
    bridge.lost("c", lambda: Loss("oom", "no memory"))  # there is no more to be had
    assert [e.member for e in of(run.paths, JobEnded)] == [second.member, first.member]
    other = bridge.suggest("d")  # in the only slot, until its worker is seen to have gone
    assert isinstance(other, MemberJob)
    assert other.gpu_fraction == 0.25
    assert isinstance(bridge.suggest("e"), Wait)
    assert look(there) == 4
    assert isinstance(bridge.suggest("e"), MemberJob)


@pytest.mark.parametrize("gpus", [0.75, None])
def test_where_no_whole_gpu_can_be_had_it_fails_like_an_exception(tmp_path: Path, gpus: float | None) -> None:
    """Others hold a part of the only one; an autoscaler may bring one."""
    run = runs.open_run(make(tmp_path / "run", **GPUS), tmp_path)
    census = Census(run.plan.resources, [ClusterNode("1", "h1", Node(8, 1), Node(8, gpus))]) if gpus else None
    bridge = Bridge(run, start_session(run, runner="ray", slots=3, views={}), WarmUp(3), census)
    first = bridge.suggest("a")
    assert isinstance(first, MemberJob)
    bridge.lost("a", lambda: Loss("oom", "no memory"))
    assert len(of(run.paths, JobRetried)) == (gpus is None)
    assert len(of(run.paths, JobEnded)) == (gpus is not None)
    assert isinstance(bridge.suggest("b"), MemberJob)
    assert isinstance(bridge.suggest("c"), MemberJob)


# Four jobs on one planted GPU, of which one runs out of memory.
ALONE = """
import sys
from pathlib import Path

from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from tests.run.ray.test_placement import GPUS
from tests.worlds.plans import plan
from tune_rh import search
from tune_rh.record.events import Evaluated, JobRetried

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=4, num_gpus=1)
fixed = {**GPUS["fixed"], "fail_marker": str(Path("once").absolute())}
alone = None


def look(event, history):
    global alone
    if isinstance(event, JobRetried):
        alone = event.member
    elif isinstance(event, Evaluated) and event.member == alone:
        shares = [
            bundle["GPU"]
            for group in placement_group_table().values() if group["state"] == "CREATED"
            for bundle in group["bundles"].values()
        ]
        print(*shares, file=Path("shares.txt").open("a"))


try:
    places = {"runs_dir": sys.argv[1], "data_dir": ".", "address": cluster.address}
    search(plan(**{**GPUS, "fixed": fixed}), **places, on_event=look)
finally:
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # the start of a cluster is in it
def test_a_job_that_runs_out_of_memory_has_a_gpu_for_itself(tmp_path: Path) -> None:
    paths = driven(tmp_path, ALONE)
    (lost,) = of(paths, JobRetried)
    assert lost.cause == "oom"
    assert {line for line in (tmp_path / "shares.txt").read_text().splitlines()} == {"1.0"}
    assert [e.slots for e in of(paths, SessionStarted, SlotsChanged)] == [4, 1, 4]
    between = of(paths, JobRetried, JobStarted, JobEnded)
    between = between[between.index(lost) + 1 :]
    (end,) = [i for i, e in enumerate(between) if isinstance(e, JobEnded) and e.member == lost.member][:1]
    assert [e for e in between[:end] if isinstance(e, JobStarted)] == []
    quiet = make(tmp_path / "quiet", **{**GPUS, "fixed": {"noise": 0.02}, "resources": {}})
    finish(quiet)
    assert curves(paths) == curves(quiet)
