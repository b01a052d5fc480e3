"""Memory that is kept between steps instead of being given back and mapped anew.

glibc maps every large tensor freshly and unmaps it when it is freed; the kernel then clears each page again at the next step, which on a
CPU can cost more than the arithmetic on it. Keeping freed memory costs nothing but that it stays with the process.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Names and numbers of glibc's malloc.h."""
NEVER = 2**31 - 1
PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells glibc's allocator, for the rest of the process, to reuse what it has; False where there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD_BYTES)))
