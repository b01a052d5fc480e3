"""Runs that a figure needs: trained once, kept in a folder, taken up again where a session cut them off."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from fenlei.artifact import MANIFEST, checkpoints
from fenlei.models.hub import resolve_model
from fenlei.report.evaluation import Evaluation, evaluate_run
from fenlei.training.fit import train
from fenlei.training.progress import Progress

WORK = Path(os.environ.get("FENLEI_BENCH", "runs/bench"))
"""Where runs and cut-down data lie."""


def shared() -> Path:
    """The folder of measuring data; ends the process where it is not set."""
    if "FENLEI_SHARED" not in os.environ:
        sys.exit("set FENLEI_SHARED to the folder that holds data/thucnews10 and the other sets")
    return Path(os.environ["FENLEI_SHARED"])


def real_model() -> str:
    """The folder of the real language model; ends the process where it is not set."""
    if "FENLEI_REAL_MODEL" not in os.environ:
        sys.exit("set FENLEI_REAL_MODEL to the folder of a Qwen2.5-0.5B")
    return os.environ["FENLEI_REAL_MODEL"]


def model_folder() -> str:
    """The real model as a folder, for those who do not know `nano`."""
    return str(resolve_model(real_model()))


def head_of(data: Path, rows: int) -> Path:
    """The first `rows` lines of `data`, as a file of its own."""
    target = WORK / "data" / f"{data.parent.name}_{data.stem}_{rows}.jsonl"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with data.open(encoding="utf-8") as file:
            target.write_text("".join(islice(file, rows)), encoding="utf-8")
    return target


def rows_behind(data: Path, first: int, rows: int | None) -> Path:
    """The `rows` lines of `data` behind the `first` ones, as a file of its own; all of `data` where `rows` is None."""
    if rows is None:
        return data
    target = WORK / "data" / f"{data.parent.name}_{data.stem}_{first}_to_{first + rows}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with data.open(encoding="utf-8") as file:
        target.write_text("".join(islice(file, first, first + rows)), encoding="utf-8")
    return target


def lines_of(data: Path) -> list[str]:
    """Those of a file of JSON lines. Not by splitlines: a text in them may hold line ends of other kinds."""
    return [line for line in data.read_text(encoding="utf-8").split("\n") if line]


def even_head_of(data: Path, rows: int) -> Path:
    """As head_of, with no more rows of a class than its share: few rows hold every class."""
    target = WORK / "data" / f"{data.parent.name}_{data.stem}_{rows}_even.jsonl"
    if not target.exists():
        lines = [(json.loads(line)["label"], line) for line in lines_of(data)]
        share = -(-rows // len({label for label, _ in lines}))
        taken: Counter[str] = Counter()
        chosen = []
        for label, line in lines:
            if len(chosen) < rows and taken[label] < share:
                taken[label] += 1
                chosen.append(line + "\n")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(chosen), encoding="utf-8")
    return target


def given_options(words: Sequence[str]) -> dict[str, Any]:
    """`name=value` words as options of fenlei.train: headline benches try other than the defaults with them."""
    return {name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in words)}


def name_of(base: str, options: Mapping[str, Any]) -> str:
    """The run's name: `base`, and what was asked beside the defaults."""
    return "_".join([base, *(f"{key}-{value}" for key, value in options.items())]).replace("/", "-")


def random_twin(model: str) -> str:
    """A folder with the network and tokenizer of `model` and random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    source, target = resolve_model(model), WORK / "models" / f"random_{model}"
    if not (target / "config.json").exists():
        set_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).save_pretrained(target)
        AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return str(target)


def trained(name: str, data: Path, dev: Path | None, **options: Any) -> float:
    """Trains the run `name` unless it is there, resumes it where it was cut off; its training seconds.

    Without `dev`, rows of `data` are set aside.
    """

    def begin(out: Path, resume: bool) -> None:
        if dev is not None:
            options["dev"] = str(dev)
        train(data, out=out, resume=resume, progress=told, announce=announced, **options)

    return once(name, begin)


def once(name: str, begin: Callable[[Path, bool], object]) -> float:
    """Calls `begin` with the folder of the run `name`, and whether it has a checkpoint to go on from, unless it is there; its seconds."""
    out = WORK / name
    took = out / "seconds.json"
    if not (out / MANIFEST).exists():
        began = time.perf_counter()
        resume = bool(checkpoints(out))
        begin(out, resume)
        took.write_text(json.dumps({"seconds": time.perf_counter() - began, "resumed": resume}))
    seconds = json.loads(took.read_text())
    if seconds["resumed"]:
        print(f"  {name} was taken up again: its seconds are those of the last part", flush=True)
    return float(seconds["seconds"])


def was_cut_off(name: str) -> bool:
    """Whether the run was taken up again, so that its seconds are not all of it."""
    return bool(json.loads((WORK / name / "seconds.json").read_text())["resumed"])


def announced(note: str) -> None:
    """A line for every choice of a training."""
    print(f"  {note}", flush=True)


def run(name: str, data: Path, dev: Path, *, selecting: Path | Literal["dev"] | None = "dev", **options: Any) -> tuple[Evaluation, float]:
    """The figures of the run `name` on all of `dev`, and its training seconds; trained where it is not there yet.

    `selecting`: what selects the checkpoint and calibrates; `dev` itself, another file, or None for rows set aside from `data`.
    """
    seconds = trained(name, data, dev if selecting == "dev" else selecting, **options)
    return evaluate_run(WORK / name, dev), seconds


def conclude(name: str, ratio: float, goal: float, *, at_most: bool = False, **more: Any) -> None:
    """The line that every bench ends with. `at_most`: the goal is a limit."""
    met = ratio <= goal if at_most else ratio >= goal
    print(json.dumps({"name": name, "ratio": round(ratio, 4), "goal": goal, "met": met, **more}, ensure_ascii=False))


def conclude_all(name: str, found: Mapping[str, tuple[float, float]], **more: Any) -> None:
    """The same for several figures, each a ratio and its goal: the line is that of the one nearest to its goal or furthest below."""
    ratio, goal = min(found.values(), key=lambda one: one[0] / one[1])
    figures = {key: {"ratio": round(one, 4), "goal": aim, "met": one >= aim} for key, (one, aim) in found.items()}
    conclude(name, ratio, goal, figures=figures, **more)


def told(progress: Progress) -> None:
    """A line for every evaluation and every 200 steps."""
    if progress.metrics or progress.step % 200 == 0:
        figures = " ".join(f"{key} {value:.4f}" for key, value in (progress.metrics or {}).items())
        print(f"  step {progress.step}/{progress.steps}, {progress.rows_per_second:.0f} rows/s {figures}", flush=True)
