"""The C library's allocator, told to keep what is freed: training asks for the same blocks again at every step.

By default glibc gives large blocks back to the kernel as they are freed, and each comes back as pages that have to be
zeroed: on a CPU a sixth of a small model's step.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # as malloc.h numbers them
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """For the rest of the process, whose memory stays at its peak; False, and nothing, where it is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_MAX, 0))
