"""How long a user waits: python -m bench.startup.

`import fenlei` at most 0.2 s, `fenlei --help` at most 0.5 s, `fenlei predict RUN --text T` with nano at most 1 s more than importing torch
and transformers takes. Medians of a few fresh processes, the cases in turn; the interpreter's own start is shown and not taken off.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import fenlei.data
from bench.runs import WORK, conclude_all, trained

ROUNDS = 7
LIMITS = {"import fenlei": 0.2, "fenlei --help": 0.5}
MORE_THAN_IMPORTS = 1.0
NOTHING, IMPORTS, PREDICT = "python -c pass", "import torch, transformers", "fenlei predict --text"
MODEL_CLASSES = "import torch, transformers.modeling_utils"
"""What transformers itself imports once a model is loaded: below this no prediction can be."""


def cases(run: Path) -> dict[str, list[str]]:
    """What is started."""
    return {
        NOTHING: ["-c", "pass"],
        "import fenlei": ["-c", "import fenlei"],
        "fenlei --help": ["-m", "fenlei", "--help"],
        IMPORTS: ["-c", "import torch, transformers"],
        MODEL_CLASSES: ["-c", MODEL_CLASSES],
        PREDICT: ["-m", "fenlei", "predict", str(run), "--text", "央行宣布下调存款准备金率"],
    }


def medians(commands: dict[str, list[str]]) -> dict[str, float]:
    """Seconds of each; the first round only fills the caches."""
    took: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS + 1):
        for name, arguments in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds[1:]) for name, seconds in took.items()}


def main() -> int:
    """1 where a limit was broken; the last line is JSON: each limit over what was needed."""
    news = Path(fenlei.data.__path__[0]) / "builtin"
    name = "startup_nano"
    trained(name, news / "train.jsonl", news / "test.jsonl", model="nano", tuning="full", max_steps=1, baseline=False)
    took = medians(cases(WORK / name))
    limits = {**LIMITS, PREDICT: took[IMPORTS] + MORE_THAN_IMPORTS}
    for case, seconds in took.items():
        print(f"{case:26} {seconds:6.3f} s" + (f"  (limit {limits[case]:.3f} s)" if case in limits else ""))
    conclude_all("start-up: the limit over the seconds taken", {case: (limit / took[case], 1.0) for case, limit in limits.items()})
    return int(any(took[case] > limit for case, limit in limits.items()))


if __name__ == "__main__":
    sys.exit(main())
