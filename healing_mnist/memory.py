"""What the C library does with memory that is no longer used."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for what comes next, instead of giving them back to the system. True if it does.

    It gives back every block above 32 MB, and the next step pays for its pages again, one fault for every 4 KB. Blocks
    kept cost nothing, but the process holds on to its peak memory. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
