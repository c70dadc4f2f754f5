"""Memory that is kept is not faulted in again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
