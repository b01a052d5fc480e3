"""The sides of the generate benches: one prompt for all of them, each side a process of its own, in turn."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.runs import WORK, real_model, shared
from fenlei.models.backbone import load_tokenizer
from fenlei.text.instructions import compose

ROOT = Path(__file__).parents[1]
CHINESE = {
    "finance": "财经", "realty": "房产", "stocks": "股票", "education": "教育", "science": "科技",
    "society": "社会", "politics": "时政", "sports": "体育", "game": "游戏", "entertainment": "娱乐",
}  # fmt: skip


def given_arguments(description: str, rows: int) -> argparse.Namespace:
    """The options of both benches."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", type=int, default=rows, help="of our side")
    parser.add_argument("--peer-rows", type=int, default=rows, help="of the others, whose rate depends on it no more than ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--names", choices=["zh", "en"], default="zh", help="language of the label names")
    parser.add_argument("--model", default=None, help="default: FENLEI_REAL_MODEL")
    given = parser.parse_args()
    given.model = given.model or real_model()
    return given


def write_rows(part: str, rows: int, names: str, model: str) -> Path:
    """The first titles of `part` of thucnews10, each with the whole prompt, rendered, for sides that know nothing of fenlei."""
    translate = CHINESE if names == "zh" else {name: name for name in CHINESE}
    labels = tuple(translate.values())
    tokenizer = load_tokenizer(Path(model))
    instruction = compose(tokenizer, None, labels)
    before, _, after = (tokenizer.decode(ids) for ids in instruction.around(tokenizer, labels))
    target = WORK / "data" / f"generate_{part}_{names}_{rows}_{Path(model).name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (shared() / "data" / "thucnews10" / f"{part}.jsonl").open(encoding="utf-8") as file, target.open("w", encoding="utf-8") as out:
        for _, line in zip(range(rows), file, strict=False):
            row = json.loads(line)
            label = translate[row["label"]]
            told = {
                "text": row["text"],
                "label": label,
                "prompt": f"{before}{row['text']}{after}",
                "answer": label + instruction.terminator,
            }
            out.write(json.dumps(told, ensure_ascii=False) + "\n")
    return target


def alternate(sides: Mapping[str, Sequence[object]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Runs every side once a round: the last line of each is JSON with rows, seconds and peak_bytes."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    for number in range(rounds):
        for name, command in sides.items():
            words = [sys.executable, *map(str, command)]
            done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
            one = json.loads(done.stdout.strip().split("\n")[-1])
            found[name].append(one)
            print(f"round {number + 1}/{rounds}  {name}: {one['rows'] / one['seconds']:.3g} rows/s  {one}", flush=True)
    return found


def ratio(found: Mapping[str, Sequence[Mapping[str, Any]]], ours: str, other: str) -> float:
    """How many times the rows a second of `other` `ours` does: the median over rounds."""
    pairs = zip(found[ours], found[other], strict=True)
    return statistics.median(one["rows"] / one["seconds"] / (two["rows"] / two["seconds"]) for one, two in pairs)


def peak_ratio(found: Mapping[str, Sequence[Mapping[str, Any]]], ours: str, other: str) -> float:
    """The peak memory of `ours` over that of `other`: medians."""
    return statistics.median(one["peak_bytes"] for one in found[ours]) / statistics.median(one["peak_bytes"] for one in found[other])


def say(rows: float, seconds: float, **more: Any) -> None:
    """The last line of a side."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    print(json.dumps({"rows": rows, "seconds": seconds, "peak_bytes": peak, **more}, ensure_ascii=False))
