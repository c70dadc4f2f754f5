"""Allocators: the C library's keeps what is freed, torch's takes no more of a GPU than a job's share.

By default glibc gives large blocks back to the kernel as they are freed, and each comes back as pages that have to be
zeroed: on a CPU a sixth of a small model's step. Training asks for the same blocks again at every step.
"""

from __future__ import annotations

import ctypes
import re

_MIB_OF = {"bytes": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10}
_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB)"
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # as malloc.h numbers them
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """For the rest of the process, whose memory stays at its peak; False, and nothing, where it is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_MAX, 0))


def fence(share: float) -> float | None:
    """Keep torch inside this share of the GPU, for the rest of the process; what that is, in MiB, where it is a part.

    What CUDA itself takes for a process, a few hundred MiB, is not in it.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
    return share * torch.cuda.get_device_properties().total_memory / 2**20 if share < 1 else None


def in_both_units(mib: float) -> str:
    """``1,536 MiB (1.50 GiB)``."""
    return f"{mib:,.0f} MiB ({mib / 1024:,.2f} GiB)"


def out_of_memory(said: str) -> str:
    """What was asked for, what the job may take and what the GPU has, from what torch ``said`` of it."""
    facts = [
        words.format(in_both_units(float(found[1]) * _MIB_OF[found[2]]))
        for pattern, words in (
            (rf"allocate {_SIZE}", "{} asked for"),
            (rf"{_SIZE} allowed", "{} allowed"),
            (rf"capacity of {_SIZE}", "the GPU has {}"),
        )
        if (found := re.search(pattern, said))
    ]
    return f"out of memory: {', '.join(facts) or said.strip().partition(chr(10))[0]}"
