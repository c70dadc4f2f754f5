"""A search from which things are taken away while it runs, and what must be true of it in the end.

``python -m tests.cluster.chaos --seed 1 --kills 20``: the seed draws what is taken and after how many reports. Curves,
values on the test split and exported weights must be those of a search to which nothing happened; no report may stand
in the journal twice, and each member that was hit must stand there with its host and process; a kill may cost each of
them one interval of training, not more.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from tests.cluster.bed import Bed, Host, bed, driver_pid, pid_inside, unavailable, wait_until
from tests.cluster.family import PACE
from tests.cluster.searches import EVERY, NUM_STEPS, outcome, places, repeated, search_quietly, steps_taken, words
from tests.worlds.records import of
from tune_rh.record.events import Evaluated, JobEnded, JobRetried, JobStarted, MemberId, SessionStarted
from tune_rh.record.journal import RunPaths

Kind = Literal["worker", "actor", "raylet", "node", "link", "driver", "head"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PATIENCE_S = 300.0
_NEW_WORKER_S = 10.0  # what one takes to start, at the least where it is needed at once


@dataclass(frozen=True)
class Kill:
    """What is taken away.

    Attributes:
        kind: a worker's process (SIGKILL), an actor (by Ray's own word), a raylet, all processes of a node, a link for
            some seconds, the driver, or all processes of the head's host, the driver's among them.
        at: after how many reports in the journal.
        choice: which of those there are, as a number to be divided by how many there are.
        seconds: how long a link is cut.
    """

    kind: Kind
    at: int
    choice: int = 0
    seconds: float = 5.0


def draw(seed: int, number: int) -> list[Kill]:
    """Kills in order, none of them so late that the search might end before it."""
    rng = random.Random(seed)
    weights = [4, 2, 2, 2, 2, 2, 1]
    ats = sorted(rng.sample(range(3, NUM_STEPS // EVERY - 10), number))
    return [
        Kill(kind, at, rng.randrange(60), rng.uniform(2.0, 8.0))
        for kind, at in zip(rng.choices(KINDS, weights, k=number), ats, strict=True)
    ]


@dataclass(frozen=True)
class Hit:
    """A worker that trained ``member`` when it was taken away, at ``at_s``: its host, its pid there."""

    host: str
    pid: int
    member: str
    at_s: float


class Chaos:
    """A search on a bed, and what is taken from it."""

    def __init__(self, hosts: Bed, folder: Path) -> None:
        self.paths = RunPaths(folder / "runs" / "run")
        self.hit: list[Hit] = []
        self.num_dropped = 0  # jobs that were under way when their driver was taken away
        self.num_drivers = 1
        self._bed, self._folder = hosts, folder
        self._log = folder.with_suffix(".log")
        self._driver = self._tune_rh(*words(folder))

    def _tune_rh(self, *command: str) -> subprocess.Popen[str]:
        return self._bed.tune_rh(*command, "--address", self._bed.address, log=self._log)

    def take(self, kill: Kill) -> None:
        """Wait for its moment, take away what it says, and give back what a cluster needs to go on."""
        wait_until(lambda: self._num_reports() >= kill.at or self._is_over(), _PATIENCE_S, f"report {kill.at}")
        if self._is_over():
            raise AssertionError(f"the search ended before {kill}: {self.log()}")
        getattr(self, f"_take_{kill.kind}")(kill)

    def finish(self) -> None:
        """Wait for the end of the search; raises AssertionError if that is not a good one."""
        wait_until(self._is_over, _PATIENCE_S, "the end of the search")
        if self._driver.returncode:
            raise AssertionError(f"ended with {self._driver.returncode}: {self.log()}")

    def log(self) -> str:
        """The end of what the drivers have said."""
        return self._log.read_text(encoding="utf-8")[-3000:]

    def abandon(self) -> None:
        """End the driver, if it still runs."""
        if not self._is_over():
            self._bed.head.kill([driver_pid(self._driver)])
            self._driver.wait()

    def _num_reports(self) -> int:
        journal = self.paths.journal
        return journal.read_bytes().count(b'"event":"Evaluated"') if journal.exists() else 0

    def _is_over(self) -> bool:
        return self._driver.poll() is not None

    def _worker(self, kill: Kill) -> tuple[Host, int]:
        """A process that trains a member, and its host."""
        found: list[tuple[Host, int]] = []

        def look() -> bool:
            found[:] = [(host, pid) for host in self._bed.hosts for pid in self._training(host)]
            return bool(found)

        wait_until(look, _PATIENCE_S, "a worker")
        return found[kill.choice % len(found)]

    def _running(self) -> dict[str, bool]:
        """Members with a job, by the title of their worker, and whether they have reported since it began or was lost.

        One that has not may still have the title of another worker, which has let it go.
        """
        states: dict[str, bool] = {}
        for event in of(self.paths, JobStarted, JobRetried, Evaluated, JobEnded):
            states[_title(event.member)] = isinstance(event, Evaluated)
            if isinstance(event, JobEnded):
                del states[_title(event.member)]
        return states

    def _training(self, host: Host) -> list[int]:
        """Processes of a host that certainly train a member now."""
        reported = {member for member, has in self._running().items() if has}
        titles = Counter(title for one in self._bed.hosts for title in one.workers().values())
        return [pid for pid, title in sorted(host.workers().items()) if title in reported and titles[title] == 1]

    def _note(self, host: Host, pids: Sequence[int]) -> None:
        trained = host.workers()
        self.hit += [Hit(host.name, pid_inside(pid), trained.get(pid, ""), time.time()) for pid in pids]

    def _take_worker(self, kill: Kill) -> None:
        host, pid = self._worker(kill)
        self._note(host, [pid])
        host.kill([pid])

    def _take_actor(self, kill: Kill) -> None:
        host, pid = self._worker(kill)
        self._note(host, [pid])
        self._bed.kill_actor(host, pid)

    def _take_raylet(self, kill: Kill) -> None:
        host = self._node(kill)
        self._note(host, self._training(host))
        host.kill(
            [pid for pid, title in host.processes().items() if "/raylet/raylet " in title.partition(" --")[0] + " "]
        )
        wait_until(lambda: not host.workers(), 60.0, f"the end of the workers of {host.name}")
        host.kill()
        self._start(host)

    def _take_node(self, kill: Kill) -> None:
        host = self._node(kill)
        self._note(host, self._training(host))
        host.kill()
        self._start(host)

    def _take_link(self, kill: Kill) -> None:
        host = self._node(kill)
        host.plug(up=False)
        time.sleep(kill.seconds)
        host.plug(up=True)

    def _take_driver(self, kill: Kill) -> None:
        self._drop()
        self._bed.head.kill([driver_pid(self._driver)])
        self._resume()

    def _take_head(self, kill: Kill) -> None:
        self._drop()
        for host in self._bed.hosts:  # nodes without a head are of no use
            host.kill()
        self._start(*self._bed.hosts)
        self._resume()

    def _drop(self) -> None:
        """Note what goes with a driver, once its session is on record."""
        started = partial(of, self.paths, SessionStarted)
        wait_until(lambda: len(started()) == self.num_drivers, _PATIENCE_S, f"session {self.num_drivers}")
        self.num_dropped += len(self._running())
        self.num_drivers += 1
        retried = losses(self.paths)  # a driver takes what it has not yet noticed along
        self.hit = [hit for hit in self.hit if (hit.host, hit.pid) in retried]

    def _start(self, *hosts: Host) -> None:
        """Make hosts nodes again; what is left of the search waits, or it would be over before the last kill."""
        pause = self._folder / "data" / "pause"
        pause.touch()
        for host in hosts:
            self._bed.start_ray(host)
        pause.unlink()

    def _resume(self) -> None:
        self._driver.wait()
        self._driver = self._tune_rh("resume", "run", *places(self._folder))

    def _node(self, kill: Kill) -> Host:
        """A host other than the head, one with a worker if there is any."""
        others = self._bed.hosts[1:]
        busy = [host for host in others if self._training(host)] or others
        return busy[kill.choice % len(busy)]


def losses(paths: RunPaths) -> dict[tuple[str, int], JobRetried]:
    """Losses on record, by host and pid; the name of a host may end in the start of a node id, which is cut off."""
    return {(event.node.partition("-")[0], event.pid): event for event in of(paths, JobRetried)}


def had_ended(hit: Hit, ends: Iterable[JobEnded]) -> bool:
    """Whether the job that was hit had reported all: its end is on record sooner than another worker's would be."""
    return any(
        _title(event.member) == hit.member
        and 0.0 <= event.at_s - hit.at_s < _NEW_WORKER_S
        and event.outcome not in ("failed", "interrupted")
        for event in ends
    )


def _title(member: MemberId) -> str:
    """As a worker that trains it has it."""
    return f"{member.candidate} s{member.seed}"


def problems(hosts: Bed, folder: Path, kills: Sequence[Kill], expected: Mapping[str, Any]) -> list[str]:
    """What is not as it must be with a search from which ``kills`` were taken."""
    chaos = Chaos(hosts, folder)
    try:
        for number, kill in enumerate(kills, start=1):
            began = time.monotonic()
            chaos.take(kill)
            print(f"{number}: {kill} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        chaos.finish()
    except TimeoutError as error:
        raise AssertionError(f"{error}: {chaos.log()}") from error
    finally:
        chaos.abandon()
    found = outcome(chaos.paths)
    wrong = [f"{name} differs" for name in expected if found.get(name) != expected[name]]
    wrong += [f"reported twice: {report}" for report in repeated(chaos.paths)]
    retried, lost = losses(chaos.paths), of(chaos.paths, JobRetried)
    for hit in chaos.hit:
        event = retried.get((hit.host, hit.pid))
        if event is None and not had_ended(hit, of(chaos.paths, JobEnded)):
            after = [(loss.node, loss.pid, loss.cause, round(loss.at_s - hit.at_s, 1)) for loss in lost]
            wrong.append(f"not in the journal: {hit}; there are {[loss for loss in after if loss[-1] > -1.0][:4]}")
        elif event is not None:
            print(f"{hit.host} {hit.pid}: {event.cause}, after {event.at_s - hit.at_s:.1f} s", file=sys.stderr)
    if len(of(chaos.paths, SessionStarted)) != chaos.num_drivers:
        wrong.append(f"{len(of(chaos.paths, SessionStarted))} sessions, where there were {chaos.num_drivers} drivers")
    extra, num_lost = steps_taken(folder) - NUM_STEPS, len(lost) + chaos.num_dropped
    if extra > EVERY * num_lost:
        wrong.append(f"{extra} steps trained again, where {num_lost} jobs were lost")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Take things away from one search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="only these, one after another")
    args = parser.parse_args(argv)
    if reason := unavailable():
        print(reason, file=sys.stderr)
        return 2
    kills = draw(args.seed, args.kills if args.kinds is None else len(args.kinds))
    if args.kinds is not None:
        kills = [Kill(kind, kill.at, kill.choice) for kind, kill in zip(args.kinds, kills, strict=True)]
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        expected = outcome(search_quietly(Path(name) / "quiet"))
        with bed(Path(name) / "common", {PACE: "0.04"}) as hosts:
            wrong = problems(hosts, Path(name) / "common" / "search", kills, expected)
    print("\n".join(wrong) or f"{len(kills)} kills: nothing lost, nothing repeated")
    return 1 if wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # hosts end with the bed
    sys.exit(main())
