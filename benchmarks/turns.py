"""Variants of a step that take turns in one process, so that whatever else the machine does falls on all of them.

What it is not: what is timed. Time is CPU time of this process, or by the clock on a GPU.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Phase = Callable[[], object]


@dataclass(frozen=True)
class Variant:
    """Something to time: the phases of one step, one after the other, and how many tokens a step takes."""

    name: str
    phases: tuple[Phase, ...]
    tokens: int


def clock(device: str) -> float:
    """Seconds: of CPU time in this process, or by the clock once the GPU is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(variants: Sequence[Variant], rounds: int, device: str = "cpu") -> dict[str, list[list[float]]]:
    """For each variant and round, when each phase of a step was over, from the step's start.

    A step that is not timed comes before, so that caches and the allocator are as the variant itself leaves them.
    """
    times: dict[str, list[list[float]]] = {variant.name: [] for variant in variants}
    for turn in range(rounds + 1):
        first = turn % len(variants)
        for variant in (*variants[first:], *variants[:first]):
            for phase in variant.phases:
                phase()
            start = clock(device)
            ends = []
            for phase in variant.phases:
                phase()
                ends.append(clock(device) - start)
            if turn:  # in the first, kernels are chosen
                times[variant.name].append(ends)
    return times


def page_faults(variant: Variant, steps: int = 20) -> tuple[float, float]:
    """Page faults a step, and the system's share of its CPU time."""
    for phase in variant.phases * 3:
        phase()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for phase in variant.phases * steps:
        phase()
    after = resource.getrusage(resource.RUSAGE_SELF)
    system, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    return (after.ru_minflt - before.ru_minflt) / steps, system / (system + user)


def speed(variants: Sequence[Variant], times: Mapping[str, list[list[float]]], phase: int) -> dict[str, list[float]]:
    """For each variant: thousands of tokens a second up to the end of ``phase``, and the ratio to the first one's."""
    base = [ends[phase] for ends in times[variants[0].name]]
    found = {}
    for variant in variants:
        mine = [ends[phase] for ends in times[variant.name]]
        ratio = statistics.median(theirs / own for theirs, own in zip(base, mine, strict=True))
        found[variant.name] = [variant.tokens / statistics.median(mine) / 1e3, ratio]
    return found
