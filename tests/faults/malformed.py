"""A seeded campaign of malformed input: each case is one command on something damaged, in a process of its own.

A case passes if the command ends with exit code 2, 3 or 5, or does what it would have done where the damage has left
the input valid; in under 5 KB of text and 10 s of CPU time, without a traceback, and with every file as it was.

``python -m tests.faults.malformed [SEED]`` runs all cases and writes their numbers into ``docs/reliability.md``.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

import torch

from tests.faults import malformed_cases

COUNTS = {"plans": 1000, "configs and options": 250, "exports": 70, "checkpoints": 35, "curve tables": 170}
"""How many cases of each kind a full campaign has."""

_CPU_S, _WALL_S, _TEXT_BYTES = 10, 60, 5000
_PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_INTERNAL = re.compile(r"Traceback|pydantic\.dev|<class '|object at 0x|Error\(")


@dataclass(frozen=True)
class Result:
    """How a case ended.

    Attributes:
        kind: of `COUNTS`.
        number: with the seed of the campaign it names the case.
        words: the command.
        code: exit code; negative: the signal that ended it.
        text: what it wrote.
        problem: what a case may not do; empty if it passes.
    """

    kind: str
    number: int
    words: tuple[str, ...]
    code: int
    text: str
    problem: str


def campaign(counts: Mapping[str, int], seed: int, place: Path) -> Iterator[Result]:
    """Run ``counts`` cases of each kind, one after another, in folders below ``place``."""
    for name in malformed_cases.COMMANDS:
        import_module(f"tune_rh.cli.commands.{name}")  # once, not in each case
    world = malformed_cases.World.at(place / "world")
    code, text = in_fork(world.make, place)
    assert code == 0, text
    for kind, count in counts.items():
        for number in range(count):
            yield run_case(world, kind, number, seed, place / "case")


def run_case(world: malformed_cases.World, kind: str, number: int, seed: int, folder: Path) -> Result:
    """Run one case in ``folder``, which is made for it and removed."""
    rng = Random(f"{seed} {kind} {number}")
    folder.mkdir()
    try:
        case = malformed_cases.KINDS[kind](rng, world, folder)
        before = snapshot(folder)
        code, text = in_fork(case.run, folder)
        problem = _problem(code, text, case.is_valid)
        after = snapshot(folder)
        if code == 0 and case.writes:
            after = {name: after.get(name) for name in before}
        if not problem and after != before:
            problem = "files have changed"
    finally:
        shutil.rmtree(folder)
    return Result(kind, number, case.words, code, text, problem)


def in_fork(run: Callable[[], int], folder: Path) -> tuple[int, str]:
    """Exit code and text of ``run`` in a process of its own, with ``folder`` as the working folder."""
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            _be_child(run, folder, out.fileno())
        status = _wait(child)
        out.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(errors="backslashreplace")


def _be_child(run: Callable[[], int], folder: Path, out: int) -> None:
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(out, descriptor)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        os.chdir(folder)
        torch.set_num_threads(1)  # those of the parent are not there
        resource.setrlimit(resource.RLIMIT_CPU, (_used() + _CPU_S, _used() + _CPU_S + 1))
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        if sys.exc_info()[1] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _used() -> int:
    return int(sum(os.times()[:2])) + 1


def _wait(child: int) -> int:
    until = time.monotonic() + _WALL_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def _problem(code: int, text: str, is_valid: Callable[[], bool]) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if found := _INTERNAL.search(text):
        return f"text shows {found[0]!r}"
    if len(text.encode()) > _TEXT_BYTES:
        return f"{len(text.encode())} bytes of text"
    if code == 0:
        return "" if is_valid() else "taken as valid"
    if code not in (2, 3, 5):
        return f"exit code {code}"
    return "" if text.strip() else "no word"


def snapshot(folder: Path) -> dict[str, object]:
    """What is in a folder: of every file its kind and content."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return found


def table(results: list[Result]) -> str:
    """Numbers of a campaign, as Markdown."""
    rows = ["| kind | cases | exit 2 | exit 3 | exit 5 | still valid | failed |", "| --- |" + " ---: |" * 6]
    for kind in COUNTS:
        of_kind = [result for result in results if result.kind == kind]
        codes = Counter(result.code for result in of_kind if not result.problem)
        cells = (len(of_kind), codes[2], codes[3], codes[5], codes[0], sum(bool(r.problem) for r in of_kind))
        rows.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main(seed: int = 0) -> int:
    """Run a full campaign, and write its numbers into the page unless a case fails."""
    with tempfile.TemporaryDirectory() as place:
        results = []
        for result in campaign(COUNTS, seed, Path(place)):
            results.append(result)
            if result.problem:
                print(f"{result.kind} {result.number}: {result.problem}: {result.words}\n{result.text[-1500:]}\n")
    print(table(results))
    if any(result.problem for result in results):
        return 1
    page = _PAGE.read_text(encoding="utf-8")
    put = f"<!-- malformed -->\n{table(results)}\n<!-- -->"
    _PAGE.write_text(re.sub(r"<!-- malformed -->.*?<!-- -->", put, page, flags=re.DOTALL), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
