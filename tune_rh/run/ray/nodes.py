"""The nodes of the connected cluster, and how many jobs they have room for as they come and go."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import ray
from ray.util import placement_group_table

from tune_rh.plan.schema import Resources
from tune_rh.preflight.checks import room, without
from tune_rh.preflight.environment import Node

_RAYS, _ID_LABEL = frozenset({"CPU", "GPU", "memory", "object_store_memory"}), "ray.io/node-id"


@dataclass(frozen=True)
class ClusterNode:
    """A node that is alive.

    Attributes:
        id: Ray's.
        name: its host's, with the start of the id where several hosts have one.
        capacity: what it has in all.
        free: what other users of the cluster leave to this driver.
        leaving: whether it is about to be taken away, and takes no new work.
        num_alone: how many jobs of this driver have a whole GPU of it.
        address: of its host.
    """

    id: str
    name: str
    capacity: Node
    free: Node
    leaving: bool = False
    num_alone: int = 0
    address: str = ""

    def __str__(self) -> str:
        return f"node {self.name} ({self.address})"


@dataclass(frozen=True)
class Change:
    """What differs from the look at the nodes before: names of those that came and went; slots as they are now."""

    joined: tuple[str, ...]
    lost: tuple[str, ...]
    slots: int


class Census:
    """Counts slots from one look at the nodes to the next, beginning with ``nodes``.

    Attributes:
        slots: how many jobs may run at a time.
        num_alone: so many of them have a whole GPU, although the plan gives a job a part of one.
        whole_gpu: whether a job could have a whole GPU, as soon as this driver's other jobs leave it.
    """

    def __init__(self, resources: Resources, nodes: Collection[ClusterNode]) -> None:
        self._resources = resources
        self._names = {node.id: node.name for node in nodes}
        self._alone = resources.model_copy(update={"gpu": 1.0})
        self._last = self.slots, self.num_alone = self._count(nodes)
        self.whole_gpu = self._had_gpu = self._has_gpu(nodes)

    def look(self, nodes: Collection[ClusterNode]) -> Change:
        """Take the nodes as they are now. A new number of slots counts once two looks in a row agree on it, and so does
        that no whole GPU is left.

        Ray tells what a node has, what is free of it and which groups hold the rest one after another, so that one
        look between them may be wrong by a job.
        """
        before, self._names = self._names, {node.id: node.name for node in nodes}
        joined = tuple(name for key, name in self._names.items() if key not in before)
        lost = tuple(name for key, name in before.items() if key not in self._names)
        count = self._count(nodes)
        if count == self._last:
            self.slots, self.num_alone = count
        self._last = count
        had, self._had_gpu = self._had_gpu, self._has_gpu(nodes)
        self.whole_gpu = had or self._had_gpu
        return Change(joined, lost, self.slots)

    def _count(self, nodes: Iterable[ClusterNode]) -> tuple[int, int]:
        """Slots, and how many of them are of jobs that have a whole GPU where the plan gives them a part."""
        asked, staying = self._resources, [node for node in nodes if not node.leaving]
        if not 0 < asked.gpu < 1:
            staying = [replace(node, num_alone=0) for node in staying]
        num_alone = sum(node.num_alone for node in staying)
        fitting = num_alone + room(asked, [without(node.free, self._alone, node.num_alone) for node in staying])
        return fitting if asked.slots is None else min(fitting, asked.slots), num_alone

    def _has_gpu(self, nodes: Iterable[ClusterNode]) -> bool:
        return room(self._alone, [node.free for node in nodes if not node.leaving]) > 0


def survey() -> list[ClusterNode]:
    """The nodes that are alive."""
    named, leaving, held = names(alive=True), draining(), _held()
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        key, has = node["NodeID"], node["Resources"]
        if key in named and node["Alive"]:
            ours = {name: sum(bundle.get(name, 0.0) for bundle in held[key]) for name in has}
            left = {name: min(amount, free.get(key, {}).get(name, 0.0) + ours[name]) for name, amount in has.items()}
            capacity, labels = described(has, node["Labels"], named[key]), node["Labels"]
            num_alone = sum(bundle.get("GPU", 0.0) >= 1 for bundle in held[key])
            now = (described(left, labels), key in leaving, num_alone, node["NodeManagerAddress"])
            found.append(ClusterNode(key, named[key], capacity, *now))
    return found


def described(resources: Mapping[str, float], labels: Mapping[str, str], name: str = "") -> Node:
    """A node as checks see it, from what Ray says of its resources and labels."""
    custom = {key: amount for key, amount in resources.items() if key not in _RAYS and not key.startswith("node:")}
    told = {key: label for key, label in labels.items() if key != _ID_LABEL}
    cpus, gpus, memory = (resources.get(key, 0.0) for key in ("CPU", "GPU", "memory"))
    return Node(cpus, gpus, memory, custom, told, name)


def _held() -> dict[str, list[Mapping[str, float]]]:
    """What placement groups of this driver hold, node by node: Tune has one for each of its actors."""
    job, held = ray.get_runtime_context().get_job_id(), defaultdict[str, list[Mapping[str, float]]](list)
    for key, group in placement_group_table().items():
        if key.endswith(job) and group["state"] == "CREATED":
            for index, bundle in group["bundles"].items():
                held[group["bundles_to_node_id"][index]].append(bundle)
    return held


def names(*, alive: bool = False) -> dict[str, str]:
    """Node id -> host name, of nodes that are ``alive``, or of all.

    Where living nodes of several hosts share a name the start of the id is added; a host that comes back keeps its own.
    """
    found, hosts = ray.nodes(), defaultdict[str, set[str]](set)  # type: ignore[no-untyped-call]
    for node in found:
        if node["Alive"]:
            hosts[node["NodeManagerHostname"]].add(node["NodeManagerAddress"])
    return {
        node["NodeID"]: host if len(hosts[host]) < 2 else f"{host}-{node['NodeID'][:6]}"
        for node in found
        if (host := node["NodeManagerHostname"]) and (node["Alive"] or not alive)
    }


def draining() -> Collection[str]:
    """The ids of nodes that are about to be taken away, and take no new work."""
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found


def answers(node: str) -> bool:
    """Whether Ray's process on the node takes connections now."""
    found = next((one for one in ray.nodes() if one["NodeID"] == node), None)  # type: ignore[no-untyped-call]
    if found is None or not found["Alive"]:
        return False
    try:
        socket.create_connection((found["NodeManagerAddress"], found["NodeManagerPort"]), timeout=0.5).close()
    except OSError:
        return False
    return True
