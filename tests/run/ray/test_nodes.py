"""Slots follow the nodes of a cluster: on planted tables, and on one whose nodes come and go."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worlds.records import SMALL, of
from tune_rh.errors import PlanError
from tune_rh.plan.schema import Resources
from tune_rh.preflight.environment import Node
from tune_rh.record.events import Evaluated, JobEnded, JobStarted, NodeJoined, NodeLost, SessionStarted, SlotsChanged
from tune_rh.record.journal import RunPaths
from tune_rh.run import runs
from tune_rh.run.execute import Place
from tune_rh.run.ray.nodes import Census, Change, ClusterNode

ROOT = Path(__file__).parents[3]


def node(name: str, cpus: float, gpus: float = 0.0, *, free: float | None = None, leaving: bool = False) -> ClusterNode:
    return ClusterNode(name, name, Node(cpus, gpus), Node(cpus if free is None else free, gpus), leaving)


def test_nodes_come_and_go_by_name_and_slots_follow_once_two_looks_agree() -> None:
    one, two, three = node("h1", 2), node("h2", 2), node("h3", 4)
    census = Census(Resources(), [one, two])
    assert census.slots == 4
    assert census.look([one, two]) == Change((), (), 4)
    assert census.look([one, two, three]) == Change(("h3",), (), 4)
    assert census.look([one, two, three]) == Change((), (), 8)
    assert census.look([two, three]) == Change((), ("h1",), 8)
    assert census.look([two, three]) == Change((), (), 6)
    assert census.look([]) == Change((), ("h2", "h3"), 6)
    assert census.look([]) == Change((), (), 0)


def test_a_look_between_two_facts_changes_nothing() -> None:
    whole, torn = [node("h1", 4)], [node("h1", 4, free=3)]
    census = Census(Resources(), whole)
    assert [census.look(nodes).slots for nodes in (torn, whole, whole, torn, whole, torn)] == [4] * 6
    assert census.look(torn).slots == 3


def test_what_others_hold_and_nodes_that_leave_make_no_slot() -> None:
    assert Census(Resources(), [node("h1", 4, free=1.5), node("h2", 4, free=0)]).slots == 1
    assert Census(Resources(), [node("h1", 4, leaving=True), node("h2", 2)]).slots == 2
    assert Census(Resources(slots=3), [node("h1", 8)]).slots == 3
    assert Census(Resources(gpu=0.4), [node("h1", 8, 2)]).slots == 4


def alone_on(one: ClusterNode, num_alone: int = 1) -> ClusterNode:
    return replace(one, num_alone=num_alone)


@pytest.mark.parametrize(
    ("asked", "nodes", "slots", "num_alone"),
    [
        ({"gpu": 0.25}, [node("h1", 8, 1)], 4, 0),
        ({"gpu": 0.25}, [alone_on(node("h1", 8, 1))], 1, 1),
        ({"gpu": 0.25}, [alone_on(node("h1", 8, 2))], 5, 1),
        ({"gpu": 0.25}, [alone_on(node("h1", 8, 2), 2), node("h2", 8, 1)], 6, 2),
        ({"gpu": 0.25}, [alone_on(node("h1", 3, 2))], 3, 1),  # by its cores
        ({"gpu": 0.4, "cpu": 0.5}, [alone_on(node("h1", 1, 2))], 2, 1),
        ({"gpu": 0.25, "slots": 3}, [alone_on(node("h1", 8, 2))], 3, 1),
        ({"gpu": 1.0}, [alone_on(node("h1", 8, 2), 2)], 2, 0),  # as the plan has it
        ({"gpu": 0.25}, [alone_on(node("h1", 8, 1, leaving=True)), node("h2", 8, 1)], 4, 0),
    ],
)
def test_a_job_that_has_a_whole_gpu_takes_its_slots_from_the_others(
    asked: dict[str, Any], nodes: list[ClusterNode], slots: int, num_alone: int
) -> None:
    census = Census(Resources(**asked), nodes)
    assert (census.slots, census.num_alone) == (slots, num_alone)


@pytest.mark.parametrize(
    ("nodes", "whole_gpu"),
    [
        ([node("h1", 8, 2)], True),
        ([node("h1", 8, 0.75)], False),  # others hold a quarter of it
        ([node("h1", 8, 1, leaving=True)], False),
        ([node("h1", 8, 1, free=1), node("h2", 8)], False),  # by its cores
    ],
)
def test_a_whole_gpu_can_be_had_where_others_leave_one(nodes: list[ClusterNode], whole_gpu: bool) -> None:
    assert Census(Resources(cpu=2, gpu=0.25), nodes).whole_gpu is whole_gpu


def test_that_no_whole_gpu_is_left_takes_two_looks() -> None:
    whole, torn = [node("h1", 8, 1)], [node("h1", 8, 0.75)]
    census, found = Census(Resources(gpu=0.25), whole), []
    for nodes in (torn, whole, torn, torn, whole):
        census.look(nodes)
        found.append(census.whole_gpu)
    assert found == [True, True, True, False, True]


NODES = st.dictionaries(st.sampled_from(["h1", "h2", "h3", "h4"]), st.integers(0, 3), max_size=4)


@given(st.lists(NODES, min_size=1, max_size=8))
def test_any_changes_add_up_to_what_is_there(tables: list[dict[str, int]]) -> None:
    looks = [[node(name, cpus) for name, cpus in table.items()] for table in tables]
    census = Census(Resources(), looks[0])
    there = set(tables[0])
    for look, table in zip(looks, tables, strict=True):
        for change in (census.look(look), census.look(look)):
            assert not there.intersection(change.joined)
            assert there.issuperset(change.lost)
            there = there.union(change.joined).difference(change.lost)
        assert there == set(table)
        assert change.slots == sum(table.values())


# A head without a core and a node with one; another joins once the control has reported, and goes once it has trained.
DRIVER = """
import sys

from ray.cluster_utils import Cluster

from tests.run.ray.test_nodes import GROWING
from tests.worlds.plans import plan
from tune_rh import search
from tune_rh.record.events import Evaluated, JobStarted

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=1)
more = None
heard = set()  # members that have reported in their present job


def grow(event, history):
    global more
    if isinstance(event, JobStarted):
        heard.discard(event.member)
    elif isinstance(event, Evaluated):
        heard.add(event.member)
        if more is None:
            more = cluster.add_node(num_cpus=1)
        elif len(heard.intersection(history.running)) == 2 and more != "gone":
            cluster.remove_node(more, allow_graceful=False)
            more = "gone"


try:
    search(plan(**GROWING), runs_dir=sys.argv[1], data_dir=".", address=cluster.address, on_event=grow)
finally:
    cluster.shutdown()
"""
GROWING: dict[str, Any] = {**SMALL, "fixed": {"noise": 0.02, "step_s": 0.1}, "resources": {"max_failures": 0}}


def driven(folder: Path, code: str) -> RunPaths:
    """The run of a driver with a cluster of its own, in ``folder``."""
    (folder / "driver.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "driver.py", str(folder / "runs")],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return RunPaths(folder / "runs" / "scripted")


@pytest.mark.slow
@pytest.mark.timeout(400)  # the start of a cluster is in it
def test_a_node_that_joins_trains_and_one_that_goes_takes_its_slot_along(tmp_path: Path) -> None:
    paths = driven(tmp_path, DRIVER)
    assert [e.slots for e in of(paths, SessionStarted, SlotsChanged)] == [1, 2, 1]
    (joined,), (lost,) = of(paths, NodeJoined), of(paths, NodeLost)
    assert joined.node == lost.node
    running, slots = 0, 0
    for event in of(paths, SessionStarted, SlotsChanged, JobStarted, JobEnded):
        if isinstance(event, SessionStarted | SlotsChanged):
            slots = event.slots
        else:
            running += 1 if isinstance(event, JobStarted) else -1
            assert isinstance(event, JobEnded) or running <= slots
    steps = [(e.member, e.step) for e in of(paths, Evaluated)]
    assert len(steps) == len(set(steps))
    assert runs.replay(paths)[1].ended == "finished"


# A head alone. An autoscaler would bring a node for the group that waits; here a thread does, by Ray's command: only
# the main thread may start one in this process.
EMPTY = """
import subprocess
import sys
import threading
import time

from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from tests.run.ray.test_nodes import GROWING
from tests.worlds.plans import plan
from tune_rh import search

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})


def say(line):
    if line == "Ray has no dashboard here; 2 slots":
        threading.Thread(target=scale, daemon=True).start()


def scale():
    while not any(group["state"] == "PENDING" for group in placement_group_table().values()):
        time.sleep(0.1)
    start = ["start", f"--address={cluster.address}", "--num-cpus=1", "--block", "--disable-usage-stats"]
    nodes.append(subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", *start]))


nodes = []
try:
    places = {"runs_dir": sys.argv[1], "data_dir": ".", "address": cluster.address}
    search(plan(**{**GROWING, "presets": [], "num_candidates": 1}), **places, slots_max=2, say=say)
finally:
    for node in nodes:
        node.terminate()
        node.wait()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # the start of a cluster is in it
def test_a_cluster_without_workers_is_given_one_for_what_waits(tmp_path: Path) -> None:
    paths = driven(tmp_path, EMPTY)
    assert [e.slots for e in of(paths, SessionStarted, SlotsChanged)] == [2]
    assert runs.replay(paths)[1].ended == "finished"


@pytest.mark.parametrize(
    ("slots_max", "place", "message"),
    [
        (0, {"address": "auto"}, "--slots-max 0: at least 1"),
        (2, {}, "--slots-max 2: is for a Ray cluster to join, with --address"),
        (2, {"runner": "local"}, "--slots-max 2: is for a Ray cluster to join, with --address"),
    ],
)
def test_slots_that_no_autoscaler_can_bring_are_refused(slots_max: int, place: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Place(Path(), slots_max=slots_max, **place)
