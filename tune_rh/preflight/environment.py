"""What there is where a plan is to run, as plain data: a check that is handed it needs no such machine itself.

Not here: what a plan needs (`tune_rh.preflight.estimates`), nor whether that fits (`tune_rh.preflight.checks`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tune_rh.plan.schema import Resources

MIB, GIB = 2**20, 2**30
# In a process of its own: asking for its memory takes some of a GPU for as long as the process that asked lives.
_ASK_TORCH = """
import json, torch
facts = {"gpus": torch.cuda.device_count()}
if facts["gpus"]:
    facts["free_memory"], facts["memory"] = torch.cuda.mem_get_info()
    facts["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
    facts["fused_attention"] = torch.backends.cuda.is_flash_attention_available()
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Node:
    """One machine. None where a job placed on it is not asked for that, or it is not known.

    Attributes:
        memory: bytes that jobs may be counted with.
        custom: other resources by name.
        name: where there are several.
    """

    cpus: float
    gpus: float = 0.0
    memory: float | None = None
    custom: Mapping[str, float] | None = None
    labels: Mapping[str, str] | None = None
    name: str = ""


@dataclass(frozen=True)
class Env:
    """What a run is to be launched on. None where nothing can be known from here, such as a cluster to be joined.

    Attributes:
        device: what jobs train on.
        memory, free_memory: bytes of one GPU; of the machine where jobs train on the CPU.
        free_disk: bytes where runs lie.
        bf16: whether the device computes in bfloat16.
        fused_attention: whether torch has fused attention for the device.
        nodes: the machines that jobs may be placed on.
        slots: the most jobs at a time that the runner takes, whatever there is room for.
        wait_policy, num_threads: ``OMP_WAIT_POLICY`` and ``OMP_NUM_THREADS``; empty and None where they are not set.
    """

    device: Literal["cpu", "cuda"]
    free_disk: int
    memory: int | None = None
    free_memory: int | None = None
    bf16: bool | None = None
    fused_attention: bool | None = None
    nodes: tuple[Node, ...] | None = None
    slots: int | None = None
    wait_policy: str = ""
    num_threads: int | None = None


def survey(
    resources: Resources, folder: Path, *, address: str = "local", environ: Mapping[str, str] = os.environ
) -> Env:
    """Look at this machine. torch is loaded in another process, and only where jobs ask for a GPU.

    Args:
        resources: what a job asks for.
        folder: where runs lie; it is there.
        address: of the Ray cluster to be joined; ``local``: jobs run here.
        environ: the environment.
    """
    threads = environ.get("OMP_NUM_THREADS", "")
    env = Env(
        device="cuda" if resources.gpu else "cpu",
        free_disk=shutil.disk_usage(folder).free,
        wait_policy=environ.get("OMP_WAIT_POLICY", ""),
        num_threads=int(threads) if threads.isdecimal() else None,
    )
    if address != "local":
        return env
    cores = float(os.cpu_count() or 1)
    if not resources.gpu:
        memory, free = _machine_memory()
        fields: dict[str, Any] = {"bf16": _cpu_has_bf16(), "fused_attention": True}
        return replace(env, memory=memory, free_memory=free, nodes=(Node(cores),), **fields)
    facts = _first_gpu()
    return replace(env, nodes=(Node(cores, float(facts.pop("gpus", 0))),), **facts)


def size(number: float) -> str:
    """Bytes in both units that sizes are spoken of in: ``1,536 MiB (1.50 GiB)``."""
    return f"{number / MIB:,.0f} MiB ({number / GIB:,.2f} GiB)"


def _first_gpu() -> dict[str, Any]:
    """How many GPUs torch sees, and what the first one has; empty where torch cannot be asked."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, check=True, timeout=120
        )
        facts: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return facts


def _machine_memory() -> tuple[int | None, int | None]:
    """Bytes of memory in all, and free: what a control group allows where that is less. None where nothing says it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        facts = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        total, free = facts["MemTotal"], facts["MemAvailable"]
    except (OSError, KeyError, ValueError):
        return None, None
    group = Path("/sys/fs/cgroup")
    try:
        allowed = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no group, or one without a limit ("max")
        return total, free
    return min(total, allowed), min(free, max(0, allowed - used))


def _cpu_has_bf16() -> bool | None:
    """Whether the processor multiplies bfloat16 itself; torch emulates it where it does not."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
