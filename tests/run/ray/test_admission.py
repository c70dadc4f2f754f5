"""Nodes that join are looked at before they make a slot, and are brought the data set that they lack."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from tests.run.ray.test_nodes import driven
from tests.worlds.records import SMALL, of
from trainables.api import Finding
from trainables.errors import DataError
from tune_rh.errors import PlanError
from tune_rh.plan.schema import Resources
from tune_rh.preflight.environment import Node
from tune_rh.record.events import NodeJoined, SessionStarted, SlotsChanged
from tune_rh.run import runs
from tune_rh.run.execute import Place
from tune_rh.run.ray import nodes
from tune_rh.run.ray.admit.admission import Admission
from tune_rh.run.ray.admit.shipping import files_of, ship
from tune_rh.run.ray.nodes import Census, ClusterNode


def node(name: str, cpus: float = 2) -> ClusterNode:
    return ClusterNode(name, name, Node(cpus), Node(cpus), address="10.0.0.1")


class Look:
    """Stands for the probe: answers once it is let, and notes who asked in which thread."""

    def __init__(self, **found: list[Finding]) -> None:
        self.let, self.asked, self.threads = threading.Event(), list[str](), list[str]()
        self._found = found

    def __call__(self, nodes: Collection[ClusterNode]) -> list[Finding]:
        (one,) = nodes
        self.asked.append(one.id)
        self.threads.append(threading.current_thread().name)
        self.let.wait()
        return self._found.get(one.id, [])


def settled(admission: Admission, nodes: list[ClusterNode], out: list[str]) -> list[ClusterNode]:
    """The nodes once only those are kept out."""
    while True:
        passed = admission.pass_on(nodes)
        if admission.kept_out == out:
            return passed
        threading.Event().wait(0.01)


def test_a_node_that_joins_makes_a_slot_once_it_was_looked_at_beside_the_search() -> None:
    look, census = Look(), Census(Resources(), [node("h1")])
    admission = Admission(Resources(), look, ["h1"])
    there = [node("h1"), node("h2")]
    for _ in range(2):
        assert census.look(admission.pass_on(there)).slots == 2
    assert admission.kept_out == ["h2"]
    look.let.set()
    passed = settled(admission, there, [])
    census.look(passed)
    assert census.look(admission.pass_on(there)).slots == 4
    assert look.asked == ["h2"]
    assert look.threads == ["admission"]


def test_a_node_that_fails_is_told_of_once_and_makes_no_slot() -> None:
    wanting = [Finding("P81", "node h2", "cannot use /runs"), Finding("P84", "node h2", "has not the data set")]
    said: list[str] = []
    look = Look(h2=wanting)
    look.let.set()
    admission = Admission(Resources(), look, ["h1"], say=said.append)
    while not said:
        passed = admission.pass_on([node("h1"), node("h2")])
    assert said == ["warning: node h2 (10.0.0.1) takes no job: P81 cannot use /runs; P84 has not the data set"]
    assert Census(Resources(), passed).slots == 2
    assert [one.leaving for one in admission.pass_on([node("h1"), node("h2")])] == [False, True]
    assert len(said) == len(look.asked) == 1


def test_what_was_accepted_keeps_no_node_out_and_one_without_room_is_not_looked_at() -> None:
    look = Look(h2=[Finding("P82", "node h2", "has torch 2.11.0")])
    look.let.set()
    admission = Admission(Resources(), look, [], lambda: {"P82"}, pytest.fail)
    settled(admission, [node("h2"), node("h3", 0)], [])
    assert look.asked == ["h2"]


def test_a_look_that_fails_is_a_reason() -> None:
    said: list[str] = []

    def look(_nodes: Collection[ClusterNode]) -> list[Finding]:
        raise OSError(28, "No space left on device")

    admission = Admission(Resources(), look, [], say=said.append)
    while not said:
        admission.pass_on([node("h2")])
    assert said == [
        "warning: node h2 (10.0.0.1) takes no job: P86 cannot be looked at ([Errno 28] No space left on device)"
    ]


def test_a_host_that_rejoins_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(key: str, host: str, address: str, alive: bool) -> dict[str, Any]:
        return {"NodeID": key, "NodeManagerHostname": host, "NodeManagerAddress": address, "Alive": alive}

    before = told("aaaaaaaa", "h2", "10.0.0.2", False)
    again = told("bbbbbbbb", "h2", "10.0.0.2", True)
    moved = told("cccccccc", "h1", "10.0.0.1", False)
    monkeypatch.setattr("ray.nodes", lambda: [before, again, moved, told("dddddddd", "h1", "10.0.0.9", True)])
    assert nodes.names() == {"aaaaaaaa": "h2", "bbbbbbbb": "h2", "cccccccc": "h1", "dddddddd": "h1"}
    assert nodes.names(alive=True) == {"bbbbbbbb": "h2", "dddddddd": "h1"}
    monkeypatch.setattr("ray.nodes", lambda: [before, again, told("eeeeeeee", "h2", "10.0.0.3", True)])
    assert nodes.names(alive=True) == {"bbbbbbbb": "h2-bbbbbb", "eeeeeeee": "h2-eeeeee"}


# --- data that is brought --------------------------------------------------------------------------------------------


class Sets:
    """As a `DataSource`; a set is a folder, a file with a side-car, or of no place of its own."""

    def prepare(self, name: str, data_dir: Path, progress: object = None) -> Path:
        return {"folder": data_dir / "mine" / "set", "file": data_dir / "mine" / "one.npy"}.get(name, data_dir)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tune_rh.run.ray.admit.shipping.get_family", lambda _name: None)
    monkeypatch.setattr("tune_rh.run.ray.admit.shipping.data_source", lambda _family: Sets())
    folder = tmp_path / "data" / "mine"
    (folder / "set" / "deep").mkdir(parents=True)
    (folder / "set" / "deep" / "a.bin").write_bytes(bytes(range(256)) * 5)
    (folder / "set" / "empty").touch()
    (folder / "one.npy").write_bytes(b"one")
    (folder / "one.json").write_text("{}")
    (folder / "other.npy").write_bytes(b"other")
    return tmp_path / "data"


def test_what_belongs_to_a_data_set(data: Path) -> None:
    assert list(files_of("mine", "folder", data)) == ["mine/set/deep/a.bin", "mine/set/empty"]
    assert list(files_of("mine", "file", data)) == ["mine/one.json", "mine/one.npy"]
    with pytest.raises(DataError, match=r"--ship-data: data set 'all' of mine lies in .*, no place of its own in"):
        files_of("mine", "all", data)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(300, func_only=True)
def test_files_arrive_in_pieces_and_whole(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rh.run.ray.admit.shipping._PIECE", 100)
    (there,) = (one.id for one in nodes.survey())
    target = tmp_path / "elsewhere"
    (target / "mine" / "set" / "deep").mkdir(parents=True)
    (target / "mine" / "set" / "deep" / "a.bin").write_bytes(b"own")
    assert ship([there], files_of("mine", "folder", data), target) == {}
    assert ship([there], files_of("mine", "file", data), target) == {}
    assert {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()} == {
        "mine/set/deep/a.bin": b"own",  # what was there stands: the digest of the set decides
        "mine/set/empty": b"",
        "mine/one.npy": b"one",
        "mine/one.json": b"{}",
    }
    (tmp_path / "file").touch()
    (why,) = ship([there], files_of("mine", "file", data), tmp_path / "file").values()
    assert why.startswith("cannot be sent the data set: ")


def test_data_goes_to_a_cluster_alone() -> None:
    for place in ({}, {"runner": "local", "address": "auto"}):
        with pytest.raises(PlanError, match="--ship-data: is for a Ray cluster to join, with --address"):
            Place(Path(), ship_data=True, **place)


# A head without a core and a node with one; one that sees another data set joins once the control has reported.
DRIVER = """
import sys

from ray.cluster_utils import Cluster

from tests.run.ray.test_admission import ANOTHER, GROWING
from tests.worlds.plans import plan
from tune_rh import search
from tune_rh.record.events import Evaluated

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=1)
more = None


def grow(event, history):
    global more
    if isinstance(event, Evaluated) and more is None:
        more = cluster.add_node(num_cpus=1, env_vars={ANOTHER: "1"})


try:
    places = {"runs_dir": sys.argv[1], "data_dir": ".", "address": cluster.address}
    search(plan(**GROWING), **places, on_event=grow, say=open("said", "a", buffering=1).writelines)
finally:
    cluster.shutdown()
"""
ANOTHER = "TUNE_RH_ANOTHER_SET"
GROWING = {
    **SMALL,
    "family": "tests.run.ray.admitted:FAMILY",
    "space": "tests.run.ray.admitted:SPACE",
    "fixed": {"noise": 0.02, "step_s": 0.1},
}


@pytest.mark.slow
@pytest.mark.timeout(400)  # the start of a cluster is in it
def test_a_node_with_other_data_joins_and_is_given_no_job(tmp_path: Path) -> None:
    paths = driven(tmp_path, DRIVER)
    assert len(of(paths, NodeJoined)) == 1
    assert [event.slots for event in of(paths, SessionStarted, SlotsChanged)] == [1]
    assert runs.replay(paths)[1].ended == "finished"
    assert (tmp_path / "said").read_text().count("takes no job: P84 has not the data set: its digest is ") == 1
