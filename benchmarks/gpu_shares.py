"""Members that share a GPU against one after another; the fence between them; half-notes against its dense twin.

In under five minutes on one GPU: a small model and preset ``half-notes``, in bfloat16, by one process on the whole GPU
and by four at a time, each fenced to a quarter, as a search has them with ``gpu = 0.25``. Members that run one after
another train as fast together as one does. Then the fence: a process with a tenth of the GPU asks for more than
that. Last, whole steps of ``half-notes`` beside a dense model of the same active width, of which it is to reach 0.8.

`--device cpu` takes toys in their place, to try the script itself: nothing is fenced there, and times mean nothing.
What it is not: a test; nothing fails here for being slow.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import torch

from benchmarks.bench_moe import DENSE, GOAL, against_dense, config_of, model_step
from benchmarks.results import hardware, record, table
from benchmarks.turns import clock, seconds, speed
from trainables.worker.allocator import fence, in_both_units, out_of_memory

TITLE = "Shares of a GPU"
MIB = 2**20
_START_S = 120.0
"""How long a member waits for the others: each imports torch, builds its model and takes its first steps."""


@dataclass(frozen=True)
class Load:
    """What a member trains.

    Attributes:
        name: in the table.
        preset, fields: of its config.
        batch: sequences in a step.
    """

    name: str
    preset: str
    fields: dict[str, Any]
    batch: int


LOADS = {
    "cuda": (Load("cpu-tiny", "cpu-tiny", {"amp": "bf16"}, 32), Load("half-notes", "half-notes", {}, 8)),
    "cpu": (Load("tiny", "tiny", {"accumulation": 1}, 4),),
}


@dataclass(frozen=True)
class Speed:
    """What a member came to.

    Attributes:
        tokens_per_s: while all of them trained.
        reserved_mib: the most that torch took of the GPU for it.
        in_use_mib: of the whole GPU by then, contexts of all processes included.
    """

    tokens_per_s: float
    reserved_mib: float
    in_use_mib: float


def member(load: Load, device: str, share: float, seconds: float, start: Barrier, end: Barrier) -> Speed:
    """Train for so many seconds, from when all members are ready, in a process that is fenced to its share."""
    torch.set_num_threads(1)
    fence(share)
    step = model_step(load.name, config_of(load.preset, **load.fields), device, load.batch)
    for _ in range(3):  # kernels are chosen, and the allocator has what it needs
        step.phases[0]()
    clock(device)
    start.wait(_START_S)
    num, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step.phases[0]()
        clock(device)  # nothing is left running on the device
        num += 1
    took = time.perf_counter() - began
    reserved = in_use = 0.0
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        reserved, in_use = torch.cuda.max_memory_reserved() / MIB, (total - free) / MIB
    end.wait(_START_S)  # until then all of them have their memory
    return Speed(num * step.tokens / took, reserved, in_use)


def together(load: Load, device: str, num: int, seconds: float) -> list[Speed]:
    """So many members at a time, each in a process of its own with its share."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(num) as pool:
        start, end = manager.Barrier(num), manager.Barrier(num)
        return pool.starmap(member, [(load, device, 1 / num, seconds, start, end)] * num)


def try_fence(share: float) -> tuple[str, str, str]:
    """A row on a process that takes nine tenths of its share, then asks for half of it more."""
    allowed = fence(share)
    assert allowed is not None
    name = f"{share:g} of a GPU, which is {in_both_units(allowed)}"
    held = torch.empty(int(0.9 * allowed * MIB), dtype=torch.uint8, device="cuda")
    try:
        torch.empty(int(0.5 * allowed * MIB), dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        return name, in_both_units(held.nbytes / MIB), out_of_memory(str(error))
    finally:
        fence(1.0)
    return name, in_both_units(held.nbytes / MIB), "not refused"


def shared(device: str, num: int, seconds: float) -> Iterator[tuple[str, ...]]:
    """Rows on each load, one after another first, which the ratio is to."""
    for load in LOADS[device]:
        base = 0.0
        for at_a_time, how in ((1, "one after another"), (num, f"{num} at a time")):
            speeds = together(load, device, at_a_time, seconds)
            total = sum(one.tokens_per_s for one in speeds)
            base = base or total
            memory = max(one.reserved_mib for one in speeds), max(one.in_use_mib for one in speeds)
            yield row(f"{load.name}, {how}", total, total / base, *memory)


def twins(device: str, rounds: int) -> Iterator[tuple[str, ...]]:
    """Rows on the last load beside a dense model of the same active width, which the ratio is to."""
    load = LOADS[device][-1]
    variants = against_dense(config_of(load.preset, **load.fields), device, load.batch)
    for name, (thousands, ratio) in speed(variants, seconds(variants, rounds, device), 0).items():
        goal = "" if name == DENSE else f" (goal {GOAL:g})"
        yield row(f"{load.name}, {name}{goal}", 1000 * thousands, ratio)


def row(name: str, tokens_per_s: float, ratio: float, *memory: float) -> tuple[str, ...]:
    """Cells of the table; sizes that were not measured stay empty."""
    sizes = [in_both_units(mib) if mib else "" for mib in memory] or ["", ""]
    return name, f"{tokens_per_s / 1000:.1f}", f"{ratio:.2f}", *sizes


def main(words: Sequence[str] | None = None) -> int:
    """Measure, and print one table; on a GPU it is a section of RESULTS.md as well."""
    parser = argparse.ArgumentParser(description="Shares of a GPU: throughput, memory, and the fence.")
    parser.add_argument("--device", choices=tuple(LOADS), default="cuda")
    parser.add_argument("--members", type=int, default=4, help="at a time")
    parser.add_argument("--seconds", type=float, default=8.0, help="that members train for")
    parser.add_argument("--rounds", type=int, default=10, help="of half-notes and its twin")
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; allowed is cpu, to try the script")
    header = ("what", "thousand tokens/s", "ratio", "GPU memory of a member", "of the whole GPU in use")
    rows = list(shared(given.device, given.members, given.seconds))
    if given.device == "cuda":
        name, held, said = try_fence(0.1)
        rows.append((f"fence: {name}; asked for half as much again: {said}", "", "", held, ""))
    rows += twins(given.device, given.rounds)
    body = table(header, rows)
    if given.device == "cuda":
        record(TITLE, "python -m benchmarks.gpu_shares", hardware("torch"), body)
    else:
        print(body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
