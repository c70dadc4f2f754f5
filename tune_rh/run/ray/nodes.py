"""The nodes of the connected cluster."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Collection

import ray


def names(*, alive: bool = False) -> dict[str, str]:
    """Node id -> host name, with the start of the id where nodes share one; of those that are ``alive``, or of all."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in found}
    shared = Counter(hosts.values())
    named = {node: host if shared[host] == 1 else f"{host}-{node[:6]}" for node, host in hosts.items()}
    return {node["NodeID"]: named[node["NodeID"]] for node in found if node["Alive"] or not alive}


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
