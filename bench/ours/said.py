"""What a child process says at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def peak_bytes(device: str) -> int:
    """The most memory this process had at once: Linux's VmHWM. `ru_maxrss` would begin with that of the process that started it.

    On CUDA, the most that its tensors took there.
    """
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def say(rows: float, seconds: float, *, device: str = "cpu", **more: Any) -> None:
    """The line that bench.side_by_side reads."""
    print(json.dumps({"rows": rows, "seconds": seconds, "peak_bytes": peak_bytes(device), **more}, ensure_ascii=False))
