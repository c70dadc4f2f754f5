"""Connecting to Ray: a cluster of its own on loopback, or one that the user names; how many jobs fit on it.

Not here: anything about trials (`tune_rh.run.ray.runner`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from tune_rh.errors import PreflightRefused, first_line
from tune_rh.plan.schema import Resources
from tune_rh.preflight.checks import check_room
from tune_rh.run.ray.joining import is_here, join
from tune_rh.run.ray.nodes import Census, survey
from tune_rh.run.ray.security import is_open, keep_token_private, loopback, private_folder
from tune_rh.watch.metrics import OWN_CLUSTERS, discovery


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Attributes:
        dashboard: where it is.
        slots: how many jobs it has room for.
        census: counts them as nodes come and go; None where the number stands.
        is_open: whether it wants no token from those who reach its ports.
    """

    dashboard: str
    slots: int
    is_open: bool = False
    census: Census | None = None


@contextmanager
def connect(
    resources: Resources,
    address: str = "local",
    *,
    owner: Path = Path(),
    slots_max: int | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Iterator[Cluster]:
    """Join ``address``, or start a cluster on loopback (``local``) that ends with this block.

    What a killed driver of the same ``owner`` left behind is cleared away. With ``slots_max`` an autoscaler is to bring
    nodes for so many jobs, whatever there is room for now.

    Raises:
        PreflightRefused: nothing answers at ``address``, it can never give what one job asks for, Ray cannot take a
            path or cannot start, or its files cannot be kept from other users.
    """
    _check_paths(owner)
    # Spinning OpenMP threads on a shared machine cost three to four times the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    temporary, job = None, JobConfig(metadata={"job_name": f"tune-rh {owner.name}"})
    if address == "local":
        # Ray puts sockets below this folder, and a socket's path may have 107 bytes at the most.
        key = hashlib.sha256(str(owner.absolute()).encode()).hexdigest()[:12]
        temporary = private_folder(OWN_CLUSTERS) / key
        shutil.rmtree(temporary, ignore_errors=True)
        keep_token_private()
        context = _start(temporary, job, say)
        endpoints = temporary.with_suffix(".json")
        endpoints.unlink(missing_ok=True)
        endpoints.symlink_to(discovery(temporary))
    else:
        context = join(address, job)
    try:
        anyone = temporary is None and is_open(ray.get_runtime_context().gcs_address)
        census = count_slots(resources) if slots_max is None else None
        yield Cluster(_dashboard(context), slots_max or (census.slots if census else 0), anyone, census)
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.with_suffix(".json").unlink(missing_ok=True)


def _start(temporary: Path, job: JobConfig, say: Callable[[str], object]) -> Any:
    """Start a cluster on loopback, without its dashboard where that keeps it from starting; Ray's context."""
    for dashboard in (None, False):  # None: wanted, but a cluster without one will do
        try:
            with loopback() as here:
                return ray.init(
                    address="local",
                    include_dashboard=dashboard,
                    dashboard_host=here,
                    _node_ip_address=here,
                    _temp_dir=str(temporary),
                    job_config=job,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as error:
            ray.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)
            why = first_line(error)
            if dashboard is None:
                say(f"warning: Ray does not start ({why}); once more, without its dashboard")
            else:
                raise PreflightRefused(
                    f"Ray does not start on this host: {why}. Free memory or cores, or use --runner local"
                ) from error
    raise AssertionError("the second attempt returns or raises")


def _dashboard(context: Any) -> str:
    """Where the dashboard is for this host; where another host alone can see it, how to have it here."""
    url = str(context.dashboard_url or "")
    host, _, port = url.rpartition(":")
    head = str(ray.get_runtime_context().gcs_address).rpartition(":")[0]
    if host not in ("127.0.0.1", "localhost") or is_here(head):
        return url and f"http://{url}"
    return f"http://127.0.0.1:{port} after `ssh -L {port}:127.0.0.1:{port} {head}`"


def _check_paths(owner: Path) -> None:
    """Raise `PreflightRefused` if the run's folder, or one that modules come from, is no text."""
    for path in (str(owner.absolute()), *sys.path):
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise PreflightRefused(
                f"{path}: Ray takes only paths that can be read as {sys.getfilesystemencoding()}. Move it, set another "
                "locale (PYTHONUTF8=1), or use --runner local"
            ) from error


def count_slots(resources: Resources) -> Census:
    """Counts how many jobs run at a time: what others leave room for, at most ``resources.slots``.

    Raises:
        PreflightRefused: not one job would fit on any node, were it free.
    """
    nodes = survey()
    problems = [str(finding) for finding in check_room(resources, [node.capacity for node in nodes], cluster=True)]
    if problems:
        raise PreflightRefused("\n".join([*problems, "Ask for less, or join another cluster with --address"]))
    return Census(resources, nodes)
