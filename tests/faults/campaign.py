"""Searches that are killed, or whose file system fails once, and what they come to after a resume.

``python -m tests.faults.campaign`` runs all of it and writes the counts into docs/reliability.md. One process holds the
libraries; each session is a fork of it, with `shim` armed, so that a case costs its search and no imports. A case is
sound if its session ends as it may, the run goes on, and everything decided, every digit of every curve, every weight
of the exported model is what a search without a fault gives.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomli_w

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
PLAN: dict[str, Any] = {
    "name": "run",
    "family": "tests.faults.family:FAMILY",
    "space": "tests.faults.family:SPACE",
    "control": "control",
    "num_candidates": 1,
    "seeds": [7],
    "eval_every": 5,
    "stages": [{"until_step": 5, "num_seeds": 1, "top": 1}, {"until_step": 10, "num_seeds": 1}],
    "scoring": {"band": 0.0, "extra_seeds": 0.0},
    "resources": {"max_failures": 0},
}
SEARCH = ["search", "plan.toml", "--no-trial"]
COUNT, KILL, TEAR, ONCE, ONWARD = range(5)
ERRNOS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Fault:
    """What befalls a session: at the n-th call to a file of its run (0: none), or after ``seconds``.

    Attributes:
        mode: one of those of the shim.
        number: of the error.
        reads: whether calls that only read count.
        study: count calls to study.db alone; without it, and where nothing is killed, sessions keep no study.db, which
            would make more calls than all else.
    """

    mode: int = COUNT
    n: int = 0
    number: int = 0
    reads: bool = False
    seconds: float = 0.0
    study: bool = False

    @property
    def kills(self) -> bool:
        """Whether it ends the process."""
        return self.mode in (KILL, TEAR) or self.seconds > 0.0

    @property
    def kind(self) -> str:
        """What it is counted as."""
        if self.kills:
            return "kills"
        return f"{errno.errorcode[self.number]}{' of study.db' if self.study else ''}"

    def __str__(self) -> str:
        if self.seconds:
            return f"killed after {self.seconds:.3f} s"
        what = {KILL: "killed before", TEAR: "killed in", ONCE: f"{errno.errorcode.get(self.number)} at"}[self.mode]
        return f"{what} call {self.n}{' (reads count)' if self.reads else ''}{' of study.db' if self.study else ''}"


def compile_shim(folder: Path) -> Path | None:
    """The shim as a library in ``folder``; None where there is no C compiler."""
    if shutil.which("cc") is None:
        return None
    library = folder / "shim.so"
    source = ROOT / "tests" / "faults" / "shim.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", library, source, "-ldl"], check=True)
    return library


# --- one session -----------------------------------------------------------------------------------------------------


def fork(work: Callable[[], int], log: Path, seconds: float = 0.0) -> int:
    """Run ``work`` in a child whose output goes to ``log``; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = work()
        except BaseException:  # noqa: BLE001 - the child ends here, and its log says why
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)
    if seconds:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Sessions:
    """Sessions of one search, each in a folder ``root`` of its own that holds the plan."""

    def __init__(self, library: Path) -> None:
        self._shim = ctypes.CDLL(str(library))

    def search(self, root: Path, fault: Fault = Fault()) -> tuple[int, int]:
        """The first session: its exit code, and how many calls it made (0 if it was killed)."""
        root.mkdir(parents=True, exist_ok=True)
        (root / "plan.toml").write_text(tomli_w.dumps(PLAN))
        return self._session(root, SEARCH, fault, "search.log", keeps_study=fault.kills or fault.study)

    def go_on(self, root: Path, *, keeps_study: bool) -> int:
        """What a user does after a session has ended: resume the run, or search again if there is none."""
        begun = (root / "runs" / "run" / "journal.jsonl").is_file()
        words = ["resume", "run"] if begun else SEARCH
        return self._session(root, words, Fault(), "resume.log", keeps_study=keeps_study)[0]

    def _session(self, root: Path, words: list[str], fault: Fault, log: str, *, keeps_study: bool) -> tuple[int, int]:
        from tune_rh.cli.main import main
        from tune_rh.run import runner

        counted = root / "counted"
        counted.unlink(missing_ok=True)

        def work() -> int:
            os.chdir(root)
            if not keeps_study:
                runner.study_view = lambda _run: {}
            part = b"study.db" if fault.study else b""
            given = (str(root / "runs").encode(), part, fault.n, fault.mode, fault.number, int(fault.reads))
            self._shim.fault_arm(*given)
            code = main([*words, "--runner", "local"])
            num = self._shim.fault_count()
            self._shim.fault_arm(b"", b"", 0, COUNT, 0, 0)
            counted.write_text(str(num))
            return code

        code = fork(work, root / log, fault.seconds)
        return code, int(counted.read_text()) if counted.exists() else 0


def outcome(root: Path) -> str:
    """A digest of all that a finished run decided and found, times aside."""
    from tests.worlds.records import decided
    from tune_rh.record.journal import RunPaths

    paths = RunPaths(root / "runs" / "run")
    weights = hashlib.sha256((paths.best / "model.safetensors").read_bytes()).hexdigest()
    return hashlib.sha256(f"{decided(paths)!r} {weights}".encode()).hexdigest()


# --- cases -----------------------------------------------------------------------------------------------------------


def problem(sessions: Sessions, root: Path, fault: Fault, expected: str) -> str:
    """What is wrong with how a search ends that meets ``fault`` and is resumed; empty if nothing is."""
    code, _ = sessions.search(root, fault)
    text = (root / "search.log").read_text(errors="replace")
    if fault.kills and code not in (-signal.SIGKILL, 0):
        return f"ended with {code}"
    if not fault.kills and code not in (0, 2, 5):
        return f"ended with {code}: {text[-300:]}"
    if "Traceback" in text and not fault.kills:
        return f"a traceback: {text[-600:]}"
    if code != 0 or any(strays(root)):
        again = sessions.go_on(root, keeps_study=fault.kills or fault.study)
        if again != 0:
            return f"ended with {code}, and went on with {again}: {(root / 'resume.log').read_text()[-400:]}"
    if outcome(root) != expected:
        return f"ended with {code}; is another search"
    return "".join(f"left {path.name}" for path in strays(root))


def strays(root: Path) -> list[Path]:
    """What lies half-made in a run."""
    return [path for path in (root / "runs").rglob(".*.tmp")]


def spread(num: int, most: int, rng: random.Random) -> list[int]:
    """``num`` numbers from 1 to ``most``, spread evenly with a random place in each part."""
    edges = [1 + i * most / num for i in range(num + 1)]
    return [min(most, int(rng.uniform(a, b))) for a, b in pairwise(edges)]


def kills(how_many: int, num: Counts, rng: random.Random) -> Iterator[Fault]:
    """A third at random moments, a third before a call, a third in the middle of one."""
    third = how_many // 3
    for after in (rng.uniform(0.0, num.seconds) for _ in range(how_many - 2 * third)):
        yield Fault(seconds=after)
    for mode in (KILL, TEAR):
        for n in spread(third, num.everything, rng):
            yield Fault(mode, n)


def faults(share: float, num: Counts, rng: random.Random) -> Iterator[Fault]:
    """Every call, or a share of them, fails once with each of `ERRNOS` (one that reads: with EIO), or if it is to
    study.db with one of them.
    """
    for number in ERRNOS:
        reads = number == errno.EIO
        for n in chosen(num.calls if reads else num.writes, share, rng):
            yield Fault(ONCE, n, number, reads)
    for n in chosen(num.study, share, rng):
        yield Fault(ONCE, n, ERRNOS[n % len(ERRNOS)], study=True)


def chosen(most: int, share: float, rng: random.Random) -> Sequence[int]:
    """A share of the numbers from 1 to ``most``."""
    return range(1, most + 1) if share >= 1.0 else spread(max(1, int(share * most)), most, rng)


@dataclass(frozen=True)
class Counts:
    """How many calls to its files a search makes.

    Attributes:
        calls: all, but to study.db.
        writes: those of them that change something.
        study: that change study.db.
        everything: that change any file.
        seconds: how long a search takes.
    """

    calls: int
    writes: int
    study: int
    everything: int
    seconds: float


def count(sessions: Sessions, folder: Path) -> Counts:
    """Counts of searches that nothing disturbs."""
    began = time.perf_counter()
    code, study = sessions.search(folder / "whole", Fault(study=True))
    seconds = time.perf_counter() - began
    assert code == 0, (folder / "whole" / "search.log").read_text()
    calls = sessions.search(folder / "calls", Fault(reads=True))[1]
    writes = sessions.search(folder / "writes")[1]
    return Counts(calls, writes, study, writes + study, seconds)


def run(num_kills: int, share: float, seed: int, folder: Path, library: Path) -> dict[str, Any]:
    """The campaign: how many cases there are of each kind, and what was wrong with which."""
    warm_up(folder / "warm")
    sessions, rng = Sessions(library), random.Random(seed)
    num = count(sessions, folder)
    expected = outcome(folder / "whole")
    bad: list[str] = []
    cases = [*kills(num_kills, num, rng), *faults(share, num, rng)]
    for number, fault in enumerate(cases):
        root = folder / f"case-{number}"
        if why := problem(sessions, root, fault, expected):
            bad.append(f"{fault}: {why}")
            print(bad[-1], file=sys.stderr, flush=True)
        if number % 100 == 99:
            print(f"{number + 1} of {len(cases)}", file=sys.stderr, flush=True)
        shutil.rmtree(root)
    return {**asdict(num), "cases": dict(Counter(fault.kind for fault in cases)), "bad": bad}


def warm_up(folder: Path) -> None:
    """Search once in this process, whose forks then have all that a session loads; leave figures out, which test
    nothing here.
    """
    import matplotlib.figure
    import torch

    from tune_rh.cli.main import main

    def save(figure: object, file: Any, **options: object) -> None:
        file.write_bytes(b"") if isinstance(file, Path) else file.write(b"<svg/>")

    matplotlib.figure.Figure.savefig = save  # type: ignore[assignment,method-assign]
    torch.set_num_threads(1)
    folder.mkdir()
    (folder / "plan.toml").write_text(tomli_w.dumps(PLAN))
    with contextlib.chdir(folder), (folder / "log").open("w") as log, contextlib.redirect_stdout(log):
        assert main([*SEARCH, "--runner", "local"]) == 0


def start(num_kills: int, share: float, seed: int, folder: Path) -> dict[str, Any] | None:
    """Run the campaign in a process of its own, with the shim loaded; None where there is no C compiler."""
    library = compile_shim(folder)
    if library is None:
        return None
    words = [sys.executable, "-m", "tests.faults.campaign", "--in-process", str(folder), str(library)]
    words += ["--kills", str(num_kills), "--share", str(share), "--seed", str(seed)]
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory, where there is one: no case waits for a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def described(summary: dict[str, Any]) -> str:
    """The counts as they stand in the docs."""
    head = (
        f"The search makes {summary['calls']} calls to its files, {summary['writes']} of which write, and "
        f"{summary['study']} that write study.db. Tried:"
    )
    lines = [f"- {num} {'' if kind == 'kills' else 'times '}{kind}" for kind, num in summary["cases"].items()]
    total = sum(summary["cases"].values())
    return "\n".join([head, "", *lines, "", f"{total - len(summary['bad'])} of {total} ended as they should."])


def main(argv: Sequence[str] | None = None) -> int:
    """All of it, into the docs; or the part of one process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--share", type=float, default=1.0, help="of calls that fail")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-process", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.in_process:
        print(json.dumps(run(args.kills, args.share, args.seed, *args.in_process)))
        return 0
    with scratch() as folder:
        summary = start(args.kills, args.share, args.seed, folder)
    if summary is None:
        print("no C compiler: nothing was tried", file=sys.stderr)
        return 2
    text = described(summary)
    print("\n".join([text, *summary["bad"]]))
    page = PAGE.read_text()
    PAGE.write_text(re.sub(r"(<!-- counts -->\n).*?(<!-- -->)", rf"\1{text}\n\2", page, flags=re.DOTALL))
    return 1 if summary["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
