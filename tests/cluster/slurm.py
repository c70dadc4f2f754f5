"""Slurm on hosts of the bed: its daemons with keys, state and logs of their own, all of which end with the hosts."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.bed import Host, wait_until

_HERE = "/tmp/slurm"
_TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "srun")


def unavailable() -> str:
    """Why there can be no Slurm here; empty if there can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"no {missing[0]} (Debian: slurm-wlm, munge) on this machine" if missing else ""


class Slurm:
    """A Slurm cluster of ``hosts``; the first one schedules."""

    def __init__(self, hosts: Sequence[Host], common: Path) -> None:
        self._head = hosts[0]
        self._conf = common / "slurm.conf"
        self._conf.write_text(_configuration(hosts), encoding="utf-8")
        key = secrets.token_hex(32)
        self._daemons: list[subprocess.Popen[str]] = []
        for host in hosts:
            host.run("sh", "-ec", f"umask 077; mkdir -p {_HERE}/state {_HERE}/spool; echo {key} > {_HERE}/munge.key")
            files = [f"--{name}={_HERE}/munge.{name.split('-')[0]}" for name in ("socket", "key-file", "pid-file")]
            self._daemon(host, "munged", "--foreground", "--force", *files, f"--seed-file={_HERE}/munge.seed")
        self._daemon(self._head, "slurmctld", "-D", "-i", "-f", str(self._conf))
        for host in hosts:
            self._daemon(host, "slurmd", "-D", "-N", host.name, "-f", str(self._conf))
        idle = "\n".join(["idle"] * len(hosts)) + "\n"
        wait_until(lambda: self.run("sinfo", "-hNo", "%t", check=False) == idle, 60.0, "idle nodes of Slurm")

    def run(self, *words: str, check: bool = True) -> str:
        """What a command of Slurm's prints."""
        return self._head.run(*words, check=check, SLURM_CONF=str(self._conf))

    def state(self, job: str) -> str:
        """``COMPLETED 0:0`` and the like."""
        shown = dict(
            field.split("=", 1) for field in self.run("scontrol", "-o", "show", "job", job).split() if "=" in field
        )
        return f"{shown['JobState']} {shown['ExitCode']}"

    def _daemon(self, host: Host, *words: str) -> None:
        log = self._conf.with_name(f"{words[0]}-{host.name}.log")
        self._daemons.append(host.start(*words, log=log, SLURM_CONF=str(self._conf)))


def _configuration(hosts: Sequence[Host]) -> str:
    lines = [
        "ClusterName=bed",
        f"SlurmctldHost={hosts[0].name}({hosts[0].address})",
        "SlurmUser=root",
        "AuthType=auth/munge",
        # A job that is requeued waits for as long as credentials are valid.
        f"AuthInfo=socket={_HERE}/munge.socket,cred_expire=5",
        f"StateSaveLocation={_HERE}/state",
        f"SlurmdSpoolDir={_HERE}/spool",
        f"SlurmctldPidFile={_HERE}/slurmctld.pid",
        f"SlurmdPidFile={_HERE}/slurmd.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "ReturnToService=2",
        *(f"NodeName={host.name} NodeAddr={host.address} CPUs=1 State=UNKNOWN" for host in hosts),
        f"PartitionName=all Nodes={','.join(host.name for host in hosts)} Default=YES MaxTime=INFINITE State=UP",
    ]
    return "\n".join(lines) + "\n"
