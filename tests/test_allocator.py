"""Freed memory stays with the process, and is reused."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from fenlei.models.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(3):
    np.ones(64 << 20, dtype=np.uint8)
before = faults()
for _ in range(10):
    np.ones(64 << 20, dtype=np.uint8)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_not_mapped_anew() -> None:
    faults = {
        way: int(subprocess.run([sys.executable, "-c", CODE, way], capture_output=True, text=True, check=True).stdout)
        for way in ("kept", "usual")
    }
    assert faults["kept"] * 10 < faults["usual"]


GROWS = """
import numpy as np
from fenlei.models.allocator import FIRST, SteadyMemory, keep_freed_memory

keep_freed_memory()
steady = SteadyMemory()
np.ones(64 << 20, dtype=np.uint8)
given_back = [steady() for _ in range(FIRST + 2)]
np.ones(256 << 20, dtype=np.uint8)
print(given_back, steady(), steady())
held = np.ones(256 << 20, dtype=np.uint8)
steady()
print(steady(), held[0])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_process_that_grows_gives_back() -> None:
    """Not what it has always taken, and once; nor again and again for the sake of what is in use."""
    said = subprocess.run([sys.executable, "-c", GROWS], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{[False] * 6} True False", "False 1"]
