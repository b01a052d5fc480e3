"""How long a user waits for `import fenlei` (limit 0.2 s) and `fenlei --help` (limit 0.5 s): the median of a few fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "python -c pass": (["-c", "pass"], None),
    "import fenlei": (["-c", "import fenlei"], 0.2),
    "fenlei --help": (["-m", "fenlei", "--help"], 0.5),
}
ROUNDS = 7


def seconds(arguments: list[str]) -> float:
    """The median wall time; the first round only fills the caches."""
    took = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def main() -> int:
    """1 where a limit was broken. The interpreter's own start is shown and not taken off."""
    late = False
    for name, (arguments, limit) in CASES.items():
        took = seconds(arguments)
        late |= limit is not None and took > limit
        print(f"{name:16} {took:6.3f} s" + (f"  (limit {limit} s)" if limit else ""))
    return int(late)


sys.exit(main())
