"""What a loss, a lost node and a clean stop cost on three nodes, beside stock Ray Tune on the same cluster.

The nodes are namespaces of this machine (`tests.cluster.bed`; needs root), with a core each. One member trains at a
time, so that two slots are free: its worker is killed (SIGKILL), and the clock runs until the next step is taken, which
must be elsewhere or in another process. The stock side is a class Trainable with a checkpoint a report and
``FailureConfig(max_failures=-1)``, its failures told by Ray in the same way. torch is imported on both sides.
"""

from __future__ import annotations

import argparse
import math
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from benchmarks.results import hardware, record, table
from tests.cluster.bed import Bed, Host, bed, driver_pid, unavailable, wait_until
from tests.cluster.family import PACE, PacedTask
from tests.cluster.searches import words
from tests.worlds.family import ScriptedConfig
from tests.worlds.records import of
from tune_rh.record.events import Evaluated, JobEnded, JobRetried, JobStarted, NodeLost, SessionStarted
from tune_rh.record.journal import RunPaths

TITLE = "Losses on three nodes"
EVERY, PACE_S = 10, 0.02
GOAL_RATIO, GOAL_USE, GOAL_STOP_S, GOAL_STOP_EARLY_S = 1.2, 0.90, 3.0, 20.0
_PATIENCE_S = 400.0
_FOR_EVER = 10**6
_OURS, _STOCK = re.compile(r"ray::\S+ c0000 s7 "), re.compile(r"ray::StockTrainable")


class StockTrainable(tune.Trainable):
    """What a torch user would write for the same task."""

    def setup(self, config: dict[str, Any]) -> None:
        """Build the task."""
        self._task = PacedTask(ScriptedConfig(), seed=7, device="cpu", data_dir=Path(config["data"]))

    def step(self) -> dict[str, Any]:
        """One evaluation interval."""
        for _ in range(EVERY):
            self._task.step()
        return self._task.evaluate()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The state, where Tune wants it."""
        import torch

        torch.save(self._task.state_dict(), Path(checkpoint_dir) / "state.pt")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The inverse."""
        import torch

        self._task.load_state_dict(torch.load(Path(checkpoint) / "state.pt", weights_only=True))


def drive_stock(folder: Path, address: str) -> None:
    """One trial that trains until this process is ended."""
    import ray

    ray.init(address=address, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(StockTrainable, {"cpu": 1}),
        param_space={"data": str(folder / "data")},
        run_config=tune.RunConfig(
            name="stock",
            storage_path=str(folder),
            failure_config=tune.FailureConfig(max_failures=-1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2),
            verbose=0,
        ),
    )
    tuner.fit()


class Side:
    """A driver on the bed's head, and the steps that its members take."""

    def __init__(self, hosts: Bed, folder: Path, *words: str) -> None:
        self.folder, self._hosts = folder, hosts
        self._log = folder.with_suffix(".log")
        self._driver = hosts.head.start(sys.executable, *words, log=self._log)

    def num_steps(self) -> int:
        """Steps that have been taken, those of lost tries among them."""
        steps = self.folder / "data" / "steps"
        return sum(file.read_text().count("\n") for file in steps.iterdir()) if steps.is_dir() else 0

    def trains(self, title: re.Pattern[str]) -> tuple[Host, int]:
        """The one process with such a title, and its host."""
        found: list[tuple[Host, int]] = []

        def look() -> bool:
            found[:] = [
                (host, pid) for host in self._hosts.hosts for pid, name in host.processes().items() if title.match(name)
            ]
            return len(found) == 1

        self.wait(look, f"one process {title.pattern}")
        return found[0]

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """Until it holds, while the driver runs."""

        def look() -> object:
            if self._driver.poll() is not None:
                raise RuntimeError(f"the driver has ended: {self._log.read_text()[-3000:]}")
            return holds()

        wait_until(look, _PATIENCE_S, what)

    def join(self) -> None:
        """Wait for the driver's own end."""
        if self._driver.wait(_PATIENCE_S):
            raise RuntimeError(f"the driver has ended: {self._log.read_text()[-3000:]}")

    def signal(self, number: int) -> float:
        """Send it to the driver; seconds until that has ended."""
        began = time.monotonic()
        if self._driver.poll() is None:
            self._hosts.head.kill([driver_pid(self._driver)], number)
            self._driver.wait(_PATIENCE_S)
        return time.monotonic() - began


def until_it_trains_again(side: Side, title: re.Pattern[str]) -> float:
    """Seconds from the end of the process that trains to the next step."""
    taken = side.num_steps()
    side.wait(lambda: side.num_steps() > taken + 3 * EVERY, "three reports")
    host, pid = side.trains(title)
    host.kill([pid])
    began, taken = time.monotonic(), side.num_steps()
    side.wait(lambda: side.num_steps() > taken, "a step after the loss")
    return time.monotonic() - began


@contextmanager
def search(hosts: Bed, folder: Path, **changes: Any) -> Iterator[tuple[Side, RunPaths]]:
    """A search of this project on the bed; it is killed at the end of the block, if it still runs."""
    side = Side(hosts, folder, "-m", "tune_rh", *words(folder, "--address", hosts.address, **changes))
    try:
        yield side, RunPaths(folder / "runs" / "run")
    finally:
        end(side)


def end(side: Side) -> None:
    """End a driver for good, and give its workers time to go."""
    side.signal(signal.SIGKILL)
    time.sleep(2.0)


# The control alone: the other candidate diverges at once.
ONE: dict[str, Any] = {
    "num_candidates": 1,
    "presets": ["diverging"],
    "seeds": [7],
    "stages": [{"until_step": _FOR_EVER, "num_seeds": 1}],
    "resources": {"max_losses": 1000},
}
THREE = {**ONE, "num_candidates": 3, "presets": []}


def losses(hosts: Bed, folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Ours and stock Tune's seconds from a worker's end to the next step, one side after the other on one cluster."""
    ours: list[float] = []
    stock: list[float] = []
    with search(hosts, folder / "ours", **ONE) as (side, _):
        ours += [until_it_trains_again(side, _OURS) for _ in range(rounds)]
    (folder / "stock").mkdir()
    command = ["-m", "benchmarks.bench_cluster", "--stock", str(folder / "stock"), "--address", hosts.address]
    side = Side(hosts, folder / "stock", *command)
    try:
        stock += [until_it_trains_again(side, _STOCK) for _ in range(rounds)]
    finally:
        end(side)
    return ours, stock


def lost_nodes(hosts: Bed, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds until a node's end and the loss of its member are on record: all its processes end; its link is cut."""
    cut = partial(Host.plug, up=False)
    return {
        "all its processes end": _lost_node(hosts, folder / "ended", Host.kill),
        "its link is cut": _lost_node(hosts, folder / "cut", cut),
    }


def _lost_node(hosts: Bed, folder: Path, take: Callable[[Host], object]) -> tuple[float, float]:
    host = hosts.hosts[1]
    with search(hosts, folder, **THREE) as (side, paths):
        side.wait(lambda: paths.journal.exists() and len(of(paths, Evaluated)) > 20 and host.workers(), "reports")
        at_s = time.time()
        take(host)
        side.wait(lambda: of(paths, NodeLost) and of(paths, JobRetried), "the node's end on record")
        seconds = of(paths, NodeLost)[0].at_s - at_s, of(paths, JobRetried)[0].at_s - at_s
    host.plug(up=True)
    host.kill()
    hosts.start_ray(host)
    return seconds


def slot_use(hosts: Bed, folder: Path) -> float:
    """The share of slot time in which a slot had a job, from the first job's start to the last one's end."""
    with search(hosts, folder, num_candidates=8) as (side, paths):
        side.join()
    began: dict[str, float] = {}
    held, first, last = 0.0, math.inf, 0.0
    for event in of(paths, JobStarted, JobEnded):
        if isinstance(event, JobStarted):
            began[str(event.member)] = event.at_s
            first = min(first, event.at_s)
        else:
            held += event.at_s - began.pop(str(event.member))
            last = event.at_s
    return held / (len(hosts.hosts) * (last - first))


def clean_stops(hosts: Bed, folder: Path) -> tuple[float, float]:
    """Seconds from SIGTERM to the end: with all workers busy, and while they start."""
    with search(hosts, folder / "busy", **THREE) as (side, paths):
        side.wait(lambda: paths.journal.exists() and len(of(paths, Evaluated)) > 20, "reports")
        busy = side.signal(signal.SIGTERM)
    with search(hosts, folder / "early", **THREE) as (side, paths):
        side.wait(lambda: paths.journal.exists() and of(paths, SessionStarted), "a session")
        time.sleep(1.0)
        early = side.signal(signal.SIGTERM)
    return busy, early


def body(
    ours: list[float], stock: list[float], nodes: dict[str, tuple[float, float]], use: float, stops: tuple[float, float]
) -> str:
    """The section of RESULTS.md."""
    house, anchor = statistics.median(ours), statistics.median(stock)
    rows: list[tuple[str, str, str, str]] = [
        ("a killed worker's member trains again, s", f"{house:.1f}", f"{anchor:.1f}", f"<= {GOAL_RATIO} x stock"),
        *(
            (f"a node, {name}: its end / its member's loss on record, s", f"{gone:.1f} / {lost:.1f}", "", "Ray's time")
            for name, (gone, lost) in nodes.items()
        ),
        ("slots with a job", f"{use:.2f}", "", f">= {GOAL_USE}"),
        ("clean stop, workers busy, s", f"{stops[0]:.1f}", "", f"<= {GOAL_STOP_S:g}"),
        ("clean stop, workers starting, s", f"{stops[1]:.1f}", "", f"<= {GOAL_STOP_EARLY_S:g}"),
    ]
    spread = f"Killed workers: {len(ours)} a side; ours {_all(ours)} s, stock Tune {_all(stock)} s."
    return f"{table(('three nodes of a core', 'tune-rh', 'stock Ray Tune', 'goal'), rows)}\n\n{spread}"


def _all(seconds: list[float]) -> str:
    return " ".join(f"{value:.1f}" for value in sorted(seconds))


def main() -> int:
    """All of it, or the driver of the stock side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="workers killed a side")
    parser.add_argument("--stock", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stock:
        drive_stock(args.stock, args.address)
        return 0
    if reason := unavailable():
        print(f"bench_cluster is left out: {reason}", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name) / "common"
        with bed(folder, {PACE: str(PACE_S)}) as hosts:
            ours, stock = losses(hosts, folder / "losses", args.rounds)
            print(ours, stock, flush=True)
            nodes = lost_nodes(hosts, folder / "nodes")
            print(nodes, flush=True)
            use = slot_use(hosts, folder / "use")
            stops = clean_stops(hosts, folder / "stops")
    record(TITLE, "python -m benchmarks.bench_cluster", hardware("ray", "torch"), body(ours, stock, nodes, use, stops))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # hosts end with the bed
    sys.exit(main())
