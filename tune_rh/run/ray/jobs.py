"""Searches as Ray Jobs: what is uploaded, how the job is made, and its log followed to the search's own exit code.

The driver then runs on a node of the cluster; nothing but the plan and the user's own modules travels, and the run
lies at a path that every node sees.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from trainables.registry import OPTIONAL, get_part
from tune_rh.errors import DONE, INTERRUPTED, PlanError, PreflightRefused, RunError, first_line

_MOST_MIB = 50
_STOP_WAIT_S = 120
_SHIPPED = {"tune_rh", "trainables", "analysis", "search_spaces"}
_PARTS = ("config", "model", "task", "data", *OPTIONAL)


@dataclass(frozen=True)
class Job:
    """A search as it goes to a cluster.

    Attributes:
        run: name of the run.
        words: arguments of ``tune-rh`` there.
        plan: a plan, uploaded as ``plan.toml``; empty where a run goes on.
        modules: folders and files of the user's own modules, uploaded beside it.
        metadata: shown on the Jobs page.
    """

    run: str
    words: Sequence[str]
    plan: str = ""
    modules: Collection[Path] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def submit(job: Job, address: str, say: Callable[[str], object]) -> int:
    """Submit a job to the cluster whose dashboard is at ``address`` and follow its log; the search's exit code.

    Raises:
        PlanError: ``address`` is none, or what would be uploaded is too large.
        PreflightRefused: no cluster answers at ``address``, or it refuses.
        RunError: the cluster could not start the job, or was lost sight of.
    """
    if not re.match(r"https?://.", address):
        raise PlanError(f"--address {address}: is not that of a dashboard, such as http://HOST:8265")
    with _answering(address):
        client = _client(address)
    with tempfile.TemporaryDirectory(prefix="tune-rh-job-") as name:
        _pack(job, Path(name))
        with _answering(address):
            identity = client.submit_job(
                entrypoint=shlex.join(("python", "-m", "tune_rh", *job.words)),
                submission_id=f"{job.run}-{secrets.token_hex(4)}",
                runtime_env={"working_dir": name, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S)}},
                metadata={"job_name": job.run, **job.metadata},
            )
    say(
        f"Submitted {job.run} to {address} as {identity}. `ray job stop {identity} --address {address}` stops it; "
        f"the same command again goes on"
    )
    try:
        return _follow(client, identity)
    except KeyboardInterrupt:
        say(f"The search goes on there; `ray job logs --follow {identity} --address {address}` shows it again")
        return INTERRUPTED
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise RunError(
            f"{address}: lost sight of job {identity} ({first_line(error).rstrip('.')}). If the cluster is there, the "
            f"search goes on; `ray job logs --follow {identity} --address {address}` shows it"
        ) from error


def own_modules(references: Collection[str], family: str) -> list[Path]:
    """Where the user's own modules lie: those that ``references`` name, and what lies beside them and was imported.

    Top-level packages count whole. What is installed is expected on the cluster as well.

    Args:
        references: ``"module:attr"``, all imported.
        family: one of them, or a name of ours; its parts are imported here.
    """
    if ":" in family:
        for part in _PARTS:
            get_part(family, part)
    roots = {reference.partition(":")[0].partition(".")[0] for reference in references}
    folders = {place.parent for root in roots if (place := _place(root)) is not None}
    loaded = {name.partition(".")[0] for name in list(sys.modules)} - _SHIPPED
    places = {place for root in loaded if (place := _place(root)) is not None and place.parent in folders}
    return sorted(places)


def _place(root: str) -> Path | None:
    """The folder or file of a top-level module that is imported from a folder of the user's; None for another."""
    module = sys.modules.get(root)
    file = getattr(module, "__file__", None)
    inside = list(getattr(module, "__path__", []))
    place = Path(inside[0]) if inside else Path(file) if file else None
    if place is None or place.suffix not in ("", ".py") or {"site-packages", "dist-packages"} & set(place.parts):
        return None
    standard = Path(os.__file__).parent
    return None if place.is_relative_to(standard) or place.stem != root else place


def _pack(job: Job, folder: Path) -> None:
    """Copy what is uploaded into ``folder``; raises PlanError if it is too much."""
    files = [file for module in job.modules for file in _files(module)]
    total = sum(file.stat().st_size for file in files)
    if total > _MOST_MIB * 2**20:
        largest = max(files, key=lambda file: file.stat().st_size)
        raise PlanError(
            f"the modules of {job.run} are {total / 2**20:.0f} MiB, where {_MOST_MIB} MiB may be uploaded; the largest "
            f"file is {largest} ({largest.stat().st_size / 2**20:.0f} MiB). Move data out of them, or install them on "
            "the nodes"
        )
    if job.plan:
        (folder / "plan.toml").write_text(job.plan, encoding="utf-8")
    for module in job.modules:
        for file in _files(module):
            target = folder / file.relative_to(module.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def _files(module: Path) -> list[Path]:
    if module.is_file():
        return [module]
    return sorted(file for file in module.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _client(address: str) -> JobSubmissionClient:
    # Ray would prefer these to the address that was given.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    logging.getLogger("ray").setLevel(logging.ERROR)  # it says when a socket closes
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    return JobSubmissionClient(address)


@contextmanager
def _answering(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, AuthenticationError, RuntimeError) as error:
        raise PreflightRefused(
            f"--address {address}: {first_line(error).rstrip('.')}; what is asked is the cluster's dashboard (http://HOST:8265)"
        ) from error


def _follow(client: JobSubmissionClient, identity: str) -> int:
    asyncio.run(_show(client, identity))
    while not (info := client.get_job_info(identity)).status.is_terminal():
        time.sleep(0.5)
    if info.status == JobStatus.SUCCEEDED:
        return DONE
    if info.status == JobStatus.STOPPED:
        return INTERRUPTED
    code = re.search(r"failed with exit code (-?\d+)", info.message or "")
    if code is None:
        raise RunError(f"job {identity}: {(info.message or 'failed').strip().splitlines()[-1]}")
    return int(code[1]) if int(code[1]) >= 0 else 128 - int(code[1])


async def _show(client: JobSubmissionClient, identity: str) -> None:
    async for lines in client.tail_job_logs(identity):
        sys.stdout.write(lines)
        sys.stdout.flush()
