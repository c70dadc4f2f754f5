"""Memory that is kept is not faulted in again; a share of a GPU is fenced, and what runs out of it says so."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from trainables.worker.allocator import fence, out_of_memory

_CODE = """
import resource, sys
from trainables.worker.allocator import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
def blocks():
    for _ in range(20):
        bytearray(b"x") * 2**26  # more than glibc ever keeps of itself
blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_blocks_that_come_again_cost_no_page_faults() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", _CODE, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("default") / 10


SAID = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.00 GiB is "
    "free. "
    "19.75 GiB allowed; Process 7 has 18.00 GiB memory in use. Of the allocated memory 17.10 GiB is allocated by "
    "PyTorch"
)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            SAID,
            "out of memory: 2,560 MiB (2.50 GiB) asked for, 20,224 MiB (19.75 GiB) allowed, the GPU has "
            "81,050 MiB (79.15 GiB)",
        ),
        (
            SAID.replace("2.50 GiB", "20.00 MiB").replace("19.75 GiB allowed; ", ""),
            "out of memory: 20 MiB (0.02 GiB) asked for, the GPU has 81,050 MiB (79.15 GiB)",
        ),
        ("Tried to allocate 512 bytes.", "out of memory: 0 MiB (0.00 GiB) asked for"),
        ("no such words\nat all", "out of memory: no such words"),
    ],
)
def test_what_torch_says_of_memory_is_given_in_both_units(said: str, words: str) -> None:
    assert out_of_memory(said) == words


def test_a_part_of_a_gpu_is_fenced_and_a_whole_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fence(0.25) is None or torch.cuda.is_available()
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(total_memory=80 * 2**30))
    assert fence(0.25) == 20 * 1024
    assert fence(1.0) is None
    assert fractions == [0.25, 1.0]
