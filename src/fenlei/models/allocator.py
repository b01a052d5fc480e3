"""Memory that is kept between steps instead of being given back and mapped anew.

glibc maps every large tensor freshly and unmaps it when it is freed; the kernel then clears each page again at the next step, which on a
CPU can cost more than the arithmetic on it. Keeping freed memory costs nothing but that it stays with the process, and that pieces of other
sizes come to lie elsewhere in it: over hours a process touches more and more of it.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Names and numbers of glibc's malloc.h."""
NEVER = 2**31 - 1
PAD_BYTES = 64 * 2**20


FIRST, GROWTH = 4, 1.05
"""Calls that say what a process takes, and times that from which it gives back."""


def keep_freed_memory() -> bool:
    """Tells glibc's allocator, for the rest of the process, to reuse what it has; False where there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, PAD_BYTES)))


class SteadyMemory:
    """Called now and then by what runs for long: gives freed memory back once the process has grown by GROWTH over its first calls."""

    def __init__(self) -> None:
        self._calls = 0
        self._usual = 0
        glibc = platform.libc_ver()[0] == "glibc"
        self._trim: Callable[[int], int] | None = ctypes.CDLL(None).malloc_trim if glibc else None

    def __call__(self) -> bool:
        """Whether memory was given back."""
        if self._trim is None:
            return False
        self._calls += 1
        if self._calls > FIRST and _resident_pages() <= GROWTH * self._usual:
            return False
        given_back = self._calls > FIRST and bool(self._trim(0))
        self._usual = max(self._usual, _resident_pages())  # what is in use then, a trim at every call would not give back
        return given_back


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
