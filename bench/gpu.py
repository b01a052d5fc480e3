"""Training and prediction on a GPU beside the plain ways: python -m bench.gpu [--quick] [--real FOLDER] [--out FILE].

A model of Qwen2.5-0.5B's shape: LoRA and full tuning on titles, LoRA on texts of up to 1,024 tokens, prediction, scoring of labels; beside
transformers.Trainer with PEFT (bfloat16, dynamic padding, SDPA, fused AdamW), transformers.pipeline and generate. Then one of Qwen1.5-7B's
shape: full tuning, LoRA with PEFT, LoRA with fenlei (bench/seven_billion.py). Peaks are those of torch.cuda.max_memory_allocated.

--real: a folder with config and tokenizer, and weights or not; default: the shape alone, over the tokenizer of nano. The data is that of
FENLEI_SHARED. About three minutes on an H100. --quick shows that it runs, with tiny models, on a CPU too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.generate_sides import CHINESE, write_rows
from bench.in_turn import THEN
from bench.runs import conclude_all, even_head_of, head_of, shared
from bench.side_by_side import PEERS, ROOT
from fenlei.models.hub import NANO_FOLDER

WAYS = ("full", "peft", "fenlei")
ROWS = {
    "LoRA, titles": (6016, 1600), "full tuning, titles": (3200, 1600), "LoRA, long texts": (640, 384),
    "prediction, titles": (8192, 3200), "prediction, long texts": (256, 256), "scoring, titles": (2048, 256),
}  # fmt: skip
"""Of fenlei and of the peer: some five seconds each."""
QUICK_ROWS = 64
NEW_TOKENS = 4
"""A label's and its end's. Random weights would never come to an end."""
CHILD_SECONDS = 240.0
GOAL = 1.0
"""Times the peer's rows a second, on every line."""


def main() -> None:
    """Prints a line for every figure; the last is JSON, which is also written to --out."""
    given = _arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.quick:
        sys.exit("no CUDA device: bench.gpu measures on one; --quick shows on a CPU that it runs")
    with tempfile.TemporaryDirectory() as folder:
        sides = commands(given.real, Path(folder), device, quick=given.quick)
        errors = {name: Path(folder) / f"{name}.log" for name in sides}
        waiting = {name: _start(words, errors[name]) for name, words in sides.items()}
        said = {name: _said_by(process, errors[name], sides[name].count(THEN) + 1) for name, process in waiting.items()}
    found = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__, **compared(said)}
    if given.out:
        given.out.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    times = {name: one["times"] for name, one in found.items() if isinstance(one, dict) and "times" in one}
    if not times:
        sys.exit("no line was measured on both sides; what went wrong is above")
    conclude_all("on a GPU: times the peer's rows a second", {name: (one, GOAL) for name, one in times.items()}, measured=found)


def commands(real: str | None, folder: Path, device: str, *, quick: bool) -> dict[str, list[str]]:
    """The words of every side's process, in the order in which they measure."""
    data, model, classifier, run = shared() / "data", folder / "causal", folder / "classifier", folder / "run"
    size = [QUICK_ROWS] * 2 if quick else None
    rows = {name: size or list(counts) for name, counts in ROWS.items()}
    titles, long = data / "thucnews10", data / "sogou10_long"
    tokenizer = real or str(NANO_FOLDER)

    def trains(name: str, source: Path, *more: object) -> list[list[object]]:
        own, theirs = (even_head_of(source / "train.jsonl", count) for count in rows[name])
        dev = head_of(source / "dev.jsonl", 40)
        return [
            ["bench.ours.train", own, dev, "--model", model, "--device", device, *more],
            [PEERS / "trainer.py", theirs, "--model", model, "--device", device],
        ]

    lora = trains("LoRA, titles", titles, "--keep", run)
    full = trains("full tuning, titles", titles, "--tuning", "full", "--steps-alone")
    long_lora = trains("LoRA, long texts", long, "--steps-alone")
    asked = {name: [head_of(source / "dev.jsonl", count) for count in rows[name]] for name, source in
             (("prediction, titles", titles), ("prediction, long texts", long))}  # fmt: skip
    scored = [write_rows("dev", count, "zh", tokenizer) for count in rows["scoring, titles"]]
    ours = [
        ["bench.ours.gpu_models", real or ("tiny" if quick else "half"), folder],
        lora[0], full[0], long_lora[0],
        *(["bench.ours.predict", run, files[0], "--device", device] for files in asked.values()),
        ["bench.ours.generate_score", scored[0], model, ",".join(CHINESE.values()), device],
    ]  # fmt: skip
    peers = [
        [*lora[1], "--batch-size", 32],
        [*full[1], "--batch-size", 32, "--tuning", "full"],
        [*long_lora[1], "--batch-size", 8, "--accumulation", 4],
        *([PEERS / "pipeline.py", classifier, files[1], "--device", device] for files in asked.values()),
        [PEERS / "generate_answers.py", scored[1], "--model", model, "--batch", 32, "--new-tokens", NEW_TOKENS, "--device", device],
    ]
    tiny = ["--tiny"] if quick else []
    ways = {f"7B {way}": [["bench.seven_billion", way, "--device", device, *tiny]] for way in WAYS}
    return {name: _joined(parts) for name, parts in {"fenlei": ours, "peers": peers, **ways}.items()}


def compared(said: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Every line's figures of both sides, and how many times the peer's rows a second are fenlei's; the ways to train 7B."""
    lines: dict[str, Any] = {"models": said["fenlei"][0]}
    for name, ours, theirs in zip(ROWS, said["fenlei"][1:], said["peers"], strict=True):
        lines[name] = {"fenlei": _figures(ours), "peer": _figures(theirs)}
        rates = [one["rows"] / one["seconds"] for one in (ours, theirs) if "rows" in one]
        if len(rates) == 2:
            lines[name]["times"] = round(rates[0] / rates[1], 2)
        print(f"{name}: {json.dumps(lines[name], ensure_ascii=False)}", flush=True)
    for way in WAYS:
        lines[f"7B {way}"] = _figures(said[f"7B {way}"][0])
        print(f"7B {way}: {json.dumps(lines[f'7B {way}'])}", flush=True)
    return lines


def _figures(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a side said, without its answers, and its rate."""
    kept = {key: round(value, 4) if isinstance(value, float) else value for key, value in said.items() if key != "answers"}
    if "rows" in said:
        kept["rows_a_second"] = round(said["rows"] / said["seconds"], 2)
    if "peak_bytes" in said:
        kept["peak_gb"] = round(kept.pop("peak_bytes") / 1e9, 2)
    return kept


def _start(words: Sequence[str], errors: Path) -> subprocess.Popen[str]:
    """The process, which imports what it needs and waits; what it says of errors goes to a file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")))}
    with errors.open("w", encoding="utf-8") as file:
        return subprocess.Popen(
            words, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
        )  # fmt: skip


def _said_by(process: subprocess.Popen[str], errors: Path, scripts: int) -> list[dict[str, Any]]:
    """What each of its scripts said, once it has been told to begin; {"failed": why} for those that it did not come to."""
    try:
        written, _ = process.communicate("begin\n", timeout=CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        written, _ = process.communicate()
    said: list[dict[str, Any]] = [json.loads(line) for line in written.split("\n") if line]
    said += [{"failed": f"ended with {process.returncode}"}] * (scripts - len(said))
    if any("failed" in one for one in said):
        print(errors.read_text(encoding="utf-8", errors="replace")[-6000:], file=sys.stderr, flush=True)
    return said


def _joined(parts: list[list[Any]]) -> list[str]:
    words: list[str] = [sys.executable, "-m", "bench.in_turn"]
    for place, part in enumerate(parts):
        words += [*([THEN] if place else []), *map(str, part)]
    return words


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny models and few rows: only shows that it runs")
    parser.add_argument("--real", help="a folder with config and tokenizer, and weights or not")
    parser.add_argument("--out", type=Path, help="a file for the JSON as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
