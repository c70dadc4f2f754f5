"""Three hosts on this machine: network, process, mount and name spaces of their own, joined by a bridge.

A host has its own temporary folder, shared memory and processes; it shares the checkout and one folder, ``common``,
with the others. What a bed started ends with it, by its process namespace; the links lie in a network namespace of
their own, so that the network of this machine stays as it is.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUM_HOSTS = 3
_PORT = 6379
_TRAINS = re.compile(r"ray::\S+ (c\d+ s\d+) ")
_TOOLS = ("ip", "unshare", "nsenter", "setpriv")
# A process that ends with this one, and whose orphans leave no zombies behind.
_HOLD = ("env", "--ignore-signal=CHLD", "sleep", "infinity")


@functools.cache
def unavailable() -> str:
    """Why there can be no bed here; empty if there can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {missing[0]} (iproute2, util-linux) on this machine"
    trial = "mount -t tmpfs none /mnt && ip link add bed0 type bridge && ip link add v0 type veth peer name v1"
    words = ["unshare", "--net", "--pid", "--fork", "--mount", "--uts", "sh", "-c", trial]
    done = subprocess.run(words, capture_output=True, text=True)
    return f"namespaces are not allowed here ({done.stderr.strip() or done.returncode})" if done.returncode else ""


class Host:
    """One host: commands run in it, processes end, its link is cut."""

    def __init__(self, number: int, common: Path, switch: int, environment: Mapping[str, str]) -> None:
        self.name, self.address = f"h{number}", _address(number)
        self._switch = switch
        self._environment = {**environment, "HOME": "/tmp/home"}
        self._holder = _hold("--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--uts")
        self._init = _child(self._holder.pid)
        self.run("sh", "-ec", self._mounts(common))
        _in_switch(switch, f"ip link add v{number} master bridge type veth peer name eth0 netns {self._init}")
        _in_switch(switch, f"ip link set v{number} up")
        self.run("sh", "-ec", f"ip link set lo up; ip addr add {self.address}/24 dev eth0; ip link set eth0 up")
        self._link = f"v{number}"

    def _mounts(self, common: Path) -> str:
        kept = [path for path in (ROOT, common, Path(sys.prefix)) if path.is_relative_to("/tmp")]
        lines = [f"hostname {self.name}", "mount -t tmpfs none /mnt"]
        names = "".join(f"{_address(number)} h{number}\n" for number in range(NUM_HOSTS))
        lines += [f"printf '127.0.0.1 localhost\n{names}' > /mnt/hosts; mount --bind /mnt/hosts /etc/hosts"]
        lines += [f"mkdir /mnt/{i}; mount --rbind '{path}' /mnt/{i}" for i, path in enumerate(kept)]
        lines += ["mount -t tmpfs none /tmp; mkdir /tmp/home", "mount -t tmpfs none /dev/shm"]
        lines += [f"mkdir -p '{path}'; mount --rbind /mnt/{i} '{path}'" for i, path in enumerate(kept)]
        return "\n".join(lines)

    def start(self, *words: str, log: Path | None = None, **environment: str) -> subprocess.Popen[str]:
        """A command in this host, its output in ``log`` (None: to be read from it)."""
        enter = ["nsenter", "--target", str(self._init), "--net", "--pid", "--mount", "--uts", f"--wd={ROOT}"]
        given = {**self._environment, **environment}
        end = ["setpriv", "--pdeathsig", "KILL"]
        if log is None:
            pipe = subprocess.PIPE
            return subprocess.Popen([*end, *enter, *words], env=given, stdout=pipe, stderr=pipe, text=True)
        with log.open("a") as file:
            return subprocess.Popen([*end, *enter, *words], env=given, stdout=file, stderr=file, text=True)

    def run(self, *words: str, check: bool = True, **environment: str) -> str:
        """What a command in this host prints; its error is raised if ``check``."""
        process = self.start(*words, **environment)
        output, errors = process.communicate()
        if check and process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)} ends with {process.returncode}: {output}{errors}")
        return output

    def processes(self) -> dict[int, str]:
        """Titles of the processes in this host, by their pid on this machine."""
        space = os.readlink(f"/proc/{self._init}/ns/pid")
        titles = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):  # it has ended
                    if os.readlink(entry / "ns" / "pid") == space and int(entry.name) != self._init:
                        titles[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return titles

    def workers(self) -> dict[int, str]:
        """Those of `processes` that train a member, with its candidate and seed (``c0001 s7``)."""
        found = {pid: _TRAINS.match(title) for pid, title in self.processes().items()}
        return {pid: match[1] for pid, match in found.items() if match}

    def kill(self, pids: Sequence[int] | None = None, number: int = signal.SIGKILL) -> None:
        """End processes of this host; None: all, as when its power is cut."""
        for pid in self.processes() if pids is None else pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def plug(self, up: bool) -> None:
        """Cut its link, or join it again."""
        _in_switch(self._switch, f"ip link set {self._link} {'up' if up else 'down'}")

    def end(self) -> None:
        """Everything in it ends, and it with it."""
        self._holder.kill()
        self._holder.wait()


class Bed:
    """Hosts with a Ray cluster on them; the first one is the head, and where drivers run."""

    def __init__(self, common: Path, environment: Mapping[str, str]) -> None:
        self.common = common
        token = common / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        given = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a Ray Job begins with `python`
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_worker_niceness": "0",  # at 15, a machine with two busy cores starves them
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self._switch = _hold("--net")
        _in_switch(self._switch.pid, "ip link add bridge type bridge")
        _in_switch(self._switch.pid, "ip link set bridge up")
        self.hosts = [Host(number, common, self._switch.pid, given) for number in range(NUM_HOSTS)]
        self.head = self.hosts[0]
        self.address = f"{self.head.address}:{_PORT}"
        self.dashboard = f"http://{self.head.address}:8265"

    def start_ray(self, host: Host) -> None:
        """Make ``host`` a node with one core. Ray's agents get 15 s to start, so a loaded machine needs a retry."""
        words = ["--head", f"--port={_PORT}", "--dashboard-host=0.0.0.0"]
        if host is not self.head:
            words = [f"--address={self.address}"]
        start = (sys.executable, "-m", "ray.scripts.scripts", "start", *words, f"--node-ip-address={host.address}")
        for tries_left in (2, 1, 0):
            try:
                host.run(*start, "--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000")
                return
            except RuntimeError:
                host.kill()
                if not tries_left:
                    raise

    def start_all(self) -> None:
        """Make every host a node, one after another."""
        for host in self.hosts:
            self.start_ray(host)

    def kill_actor(self, host: Host, pid: int) -> None:
        """End the actor in a process of ``host`` by Ray's own word, without a restart."""
        words = (self.address, host.address, str(pid_inside(pid)))
        self.head.run(sys.executable, "-m", "tests.cluster.kill_actor", *words)

    def tune_rh(self, *words: str, log: Path, host: Host | None = None) -> subprocess.Popen[str]:
        """A ``tune-rh`` command on a host (the head)."""
        return (host or self.head).start(sys.executable, "-m", "tune_rh", *words, log=log)

    def end(self) -> None:
        """End all hosts and their links."""
        for host in self.hosts:
            host.end()
        self._switch.kill()
        self._switch.wait()


@contextmanager
def bed(common: Path, environment: Mapping[str, str]) -> Iterator[Bed]:
    """Three hosts, all of them nodes of one cluster, until the block ends."""
    common.mkdir(parents=True, exist_ok=True)
    made = Bed(common, environment)
    try:
        made.start_all()
        yield made
    finally:
        made.end()


def wait_until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Return once ``holds`` gives something; raises TimeoutError that says ``what`` did not come."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


def pid_inside(pid: int) -> int:
    """The pid that a process of this machine has in its host."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("NSpid:")[2].split("\n")[0].split()[-1])


def driver_pid(process: subprocess.Popen[str]) -> int:
    """The pid, on this machine, of what a command started in a host has become there."""
    return _child(process.pid)


def _hold(*spaces: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, *_HOLD], text=True)
    space = os.readlink("/proc/self/ns/net")
    wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != space, 10.0, "a network namespace")
    return process


def _child(pid: int) -> int:
    children: list[str] = []

    def look() -> bool:
        children[:] = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        return bool(children)

    wait_until(look, 10.0, f"a child of process {pid}")
    return int(children[0])


def _address(number: int) -> str:
    return f"10.77.0.{10 + number}"


def _in_switch(switch: int, command: str) -> None:
    subprocess.run(["nsenter", "--target", str(switch), "--net", *command.split()], check=True)
