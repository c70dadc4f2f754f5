"""Jobs go to the nodes that have what their plan asks for; a plan that asks for what no node has is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.run.ray.test_nodes import driven
from tests.worlds.records import SMALL, of
from tune_rh.record.events import SessionStarted, SlotsChanged

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
        f"'demand' ({host}-",
        f"'spot' ({host}-",
        "resources.custom.fpga = 9: no node",
        "resources.memory_gib = 9: no node",
    ):
        assert line in said
    assert not (tmp_path / "runs" / "refused").exists()
