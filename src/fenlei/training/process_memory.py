"""What this process takes in memory, whatever the system it runs on."""

from __future__ import annotations

import sys

import psutil


def resident_bytes() -> int:
    """Bytes of memory that the process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """The most bytes of memory that the process has held so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Unix has it alone

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
