"""A run's folder, damaged file by file: python -m bench.damage [--quick].

500 cases: a file of a nano run or of a LoRA run truncated, with a bit flipped, emptied, removed or grown, then loaded with its checksums
and asked. The figure: cases that end in an ArtifactError or in the very answers of the whole folder, over all of them. Loading without
the checksums is tried as well and shown: there a flipped bit of a weight can change an answer, but nothing may crash or hang.
"""

from __future__ import annotations

import random
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import fenlei.data
from bench.runs import WORK, conclude, trained
from bench.side_by_side import arguments
from fenlei import Classifier
from fenlei.errors import ArtifactError

CASES, QUICK_CASES, PATIENCE_SECONDS = 500, 20, 60
TEXTS = ["央行宣布下调存款准备金率", "球队在加时赛中夺冠", "新芯片每秒计算次数翻倍"]
KINDS = ("truncated", "flipped", "emptied", "removed", "grown")


class HangError(Exception):
    """Loading took longer than it ever may."""


def damaged(kind: str, content: bytes, draw: random.Random) -> bytes | None:
    """What is left of a file; None: nothing."""
    if kind == "removed":
        return None
    if kind == "emptied" or not content:
        return b""
    if kind == "truncated":
        return content[: draw.randrange(len(content))]
    if kind == "grown":
        return content + draw.randbytes(draw.randint(1, 64))
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def outcome(run: Path, wanted: np.ndarray, *, verify: bool) -> str:
    """refused, same, another answer, or the name of an error that is no ArtifactError."""
    signal.alarm(PATIENCE_SECONDS)
    try:
        given = Classifier.load(run, device="cpu", verify=verify).predict_proba(TEXTS)
    except ArtifactError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - every other error is a finding
        return type(error).__name__
    finally:
        signal.alarm(0)
    return "same" if np.array_equal(given, wanted) else "another answer"


def hang(number: int, frame: object) -> None:
    """SIGALRM."""
    raise HangError


def main() -> int:
    """1 where a case ended otherwise; the last line is JSON."""
    given = arguments(__doc__ or "")
    signal.signal(signal.SIGALRM, hang)
    news = Path(fenlei.data.__path__[0]) / "builtin"
    draw = random.Random(0)
    cases = QUICK_CASES if given.quick else CASES
    found: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    plans = []
    for tuning in ("full", "lora"):
        name = f"damaged_{tuning}"
        trained(name, news / "train.jsonl", news / "test.jsonl", model="nano", tuning=tuning, max_steps=2, device="cpu")
        files = sorted(path for path in (WORK / name).rglob("*") if path.is_file() and path.name != "seconds.json")
        plans += [(WORK / name, path, kind) for path in files for kind in KINDS]
    draw.shuffle(plans)
    answers = {run: Classifier.load(run, device="cpu").predict_proba(TEXTS) for run in {plan[0] for plan in plans}}
    for number in range(cases):
        run, path, kind = plans[number % len(plans)]
        whole = path.read_bytes()
        left = damaged(kind, whole, draw)
        try:
            path.unlink() if left is None else path.write_bytes(left)
            for verify in (True, False):
                ended = outcome(run, answers[run], verify=verify)
                found[verify][ended] += 1
                if ended not in ("refused", "same"):
                    print(f"  {path.relative_to(WORK)} {kind}, {'verified' if verify else 'unverified'}: {ended}", flush=True)
        finally:
            path.write_bytes(whole)
    good = found[True]["refused"] + found[True]["same"]
    conclude(
        "damaged folders that are refused or answer as before",
        good / cases,
        1.0,
        cases=cases,
        verified=dict(found[True]),
        unverified=dict(found[False]),
    )
    return int(good != cases)


if __name__ == "__main__":
    sys.exit(main())
