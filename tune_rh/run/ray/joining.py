"""Joining a Ray cluster that the user names: what can be wrong with its address is said before Ray waits for it."""

from __future__ import annotations

import logging
import os
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.job_config import JobConfig

from tune_rh.errors import PreflightRefused, first_line

_ANSWER_S = 5.0
_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")
_OR = "Start one with `ray start --head`, or leave --address out for one of this run's own"


def join(address: str, job: JobConfig) -> Any:
    """Join the cluster at ``address`` (``auto``, or host:port) as this job; Ray's context.

    Raises:
        PreflightRefused: nothing answers there, this host is none of its nodes, or it wants another token or version.
    """
    if address != "auto":
        _check(address)
    environment = {"OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}
    try:
        return ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": environment},
            job_config=job,
        )
    except ConnectionError as error:
        raise _refused(address, f"no Ray cluster answers there ({first_line(error)}). {_OR}") from error
    except RuntimeError as error:  # of another Python or Ray
        raise _refused(address, first_line(error)) from error


def is_here(host: str) -> bool:
    """Whether an address is one of this host's own."""
    try:
        family, *_, where = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, socket.SOCK_STREAM)) as own:
            own.bind(where)
    except OSError:
        return False
    return True


def _check(address: str) -> None:
    """Refuse what Ray would wait a minute or for ever for, and what ends the process."""
    if address.startswith("ray://"):
        raise _refused(address, "Ray Client drives no search: name the cluster as host:port on one of its nodes")
    parts = _ADDRESS.fullmatch(address)
    if parts is None or int(parts["port"]) not in range(1, 65536):
        raise _refused(address, "is no address of a Ray cluster: allowed are auto and host:port, as in 10.0.0.5:6379")
    try:
        socket.create_connection((parts["host"].strip("[]"), int(parts["port"])), timeout=_ANSWER_S).close()
    except OSError as error:
        raise _refused(address, f"no Ray cluster answers there ({error.strerror or error}). {_OR}") from error
    _check_token(address)
    try:
        nodes = GcsClient(address=address).get_all_node_info(timeout=_ANSWER_S).values()
    except ray.exceptions.AuthenticationError as error:
        raise _refused(
            address,
            "the cluster wants a token, and this is not it: RAY_AUTH_MODE=token, with the cluster's token in "
            "RAY_AUTH_TOKEN_PATH (~/.ray/auth_token)",
        ) from error
    except (ray.exceptions.RayError, RuntimeError, OSError) as error:
        raise _refused(address, f"what answers there is no Ray cluster ({first_line(error)}). {_OR}") from error
    if not any(is_here(node.node_manager_address) for node in nodes):
        names = ", ".join(sorted({node.node_manager_hostname for node in nodes}))
        raise _refused(address, f"this host is no node of that cluster. Run this on one of its nodes: {names}")


def _check_token(address: str) -> None:
    """Ray ends the process where a token is wanted and there is none to read."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise _refused(address, f"RAY_AUTH_MODE=token, and {file} cannot be read ({error})") from error
    if not token:
        raise _refused(address, f"RAY_AUTH_MODE=token, and {file} is empty")


def _refused(address: str, why: str) -> PreflightRefused:
    return PreflightRefused(f"--address {address}: {why}")
