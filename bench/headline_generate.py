"""Generate beside the head, and zero-shot: python -m bench.headline_generate [zero-shot] [labels] [tokens] [nano] [OPTION=VALUE ...].

zero-shot: the real Qwen2.5-0.5B asked among the labels of 2,000 news titles, in English and in Chinese, with and without the correction for
the labels' prior. labels, tokens: LoRA on the first 6,000 titles with either objective, beside the head of bench.headline_6000. nano: the
built-in model on the built-in news, generate, as `fenlei demo` does with a head. An option of fenlei.train tries something else, in a run
of its own; a run that is cut off is taken up again.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from typing import Any

import numpy as np

from bench.headline_6000 import EPOCHS, ROWS, SELECTING
from bench.runs import conclude_all, given_options, head_of, name_of, real_model, run, shared
from fenlei.cli.demo import TEXT_COLUMN
from fenlei.data.readers import read_examples
from fenlei.inference.classifier import Classifier

BEHIND = 0.005
"""Points of accuracy that generate may stay behind the head."""
ZERO_SHOT_ROWS = 2000
CHINESE = {
    "education": "教育", "entertainment": "娱乐", "finance": "财经", "game": "游戏", "politics": "时政",
    "realty": "房产", "science": "科技", "society": "社会", "sports": "体育", "stocks": "股票",
}  # fmt: skip
PARTS = ("zero-shot", "labels", "tokens", "nano")


def zero_shot() -> dict[str, float]:
    """Accuracy by language of the labels and correction."""
    rows = list(read_examples(head_of(shared() / "data" / "thucnews10" / "dev.jsonl", ZERO_SHOT_ROWS)))
    texts, gold = [row.text for row in rows], [str(row.label) for row in rows]
    found = {}
    for language, names in {"English": dict(zip(CHINESE, CHINESE, strict=True)), "Chinese": CHINESE}.items():
        for corrected in (False, True):
            classifier = Classifier.zero_shot(real_model(), list(names.values()), prior_correction=corrected)
            answers = [one.label for one in classifier.predict(texts)]
            right = np.mean([answer == names[label] for answer, label in zip(answers, gold, strict=True)])
            key = f"{language} names{', corrected' if corrected else ''}"
            found[key] = round(float(right), 4)
            print(f"zero-shot, {key}: accuracy {right:.4f} on {len(rows):,} titles", flush=True)
    return found


def tuned(asked: dict[str, Any], objectives: list[str]) -> dict[str, dict[str, float]]:
    """The head and generate with each objective: accuracy and log-loss on all of dev."""
    data = shared() / "data" / "thucnews10"
    train, dev = head_of(data / "train.jsonl", ROWS), data / "dev.jsonl"
    ways: dict[str, dict[str, Any]] = {"head": {}}
    ways |= {f"generate, {objective}": {"method": "generate", "objective": objective} for objective in objectives}
    found = {}
    for way, options in ways.items():
        # Without options of its own the head is the run of bench.headline_6000.
        name = name_of(f"titles_{ROWS}_lora", {**options, **asked})
        settings = {"epochs": EPOCHS, **options, **asked}
        evaluation, seconds = run(
            name, train, dev, selecting=head_of(dev, SELECTING), model=real_model(), tuning="lora", evals_per_epoch=2, **settings
        )
        found[way] = {"accuracy": round(evaluation.metrics.accuracy, 4), "log_loss": round(evaluation.metrics.log_loss, 4)}
        print(f"{way}: {found[way]}, {seconds:.0f} s", flush=True)
    return found


def built_in(asked: dict[str, Any]) -> dict[str, float]:
    """Nano's accuracy and seconds on the built-in news."""
    builtin = files("fenlei.data") / "builtin"
    evaluation, seconds = run(
        name_of("builtin_generate", asked), builtin / "train.jsonl", builtin / "test.jsonl",
        selecting=None, model="nano", method="generate", tuning="full", text_column=TEXT_COLUMN, **asked,
    )  # fmt: skip
    assert evaluation.baseline
    print(f"nano, built-in news: {evaluation.metrics.accuracy:.4f}, TF-IDF {evaluation.baseline.accuracy:.4f}, {seconds:.0f} s", flush=True)
    return {"accuracy": round(evaluation.metrics.accuracy, 4), "seconds": round(seconds)}


def main() -> None:
    """Prints the figures; the last line is JSON."""
    words, asked = [word for word in sys.argv[1:] if "=" not in word], given_options([word for word in sys.argv[1:] if "=" in word])
    strange = [word for word in words if word not in PARTS]
    if strange:
        sys.exit(f"no such part: {strange[0]}; there are {', '.join(PARTS)}")
    parts = words or list(PARTS)
    figures: dict[str, Any] = {}
    if "zero-shot" in parts:
        figures["zero-shot"] = zero_shot()
    if "nano" in parts:
        figures["nano"] = built_in(asked)
    objectives = [part for part in parts if part in ("labels", "tokens")]
    goals = {}
    if objectives:
        figures["tuned"] = tuned(asked, objectives)
        head = figures["tuned"]["head"]["accuracy"]
        goals = {way: (one["accuracy"], head - BEHIND) for way, one in figures["tuned"].items() if way != "head"}
    if goals:
        conclude_all("generate with LoRA beside the head: accuracy", goals, measured=figures)
    else:
        print(json.dumps({"name": "generate: accuracy", "ratio": None, "goal": None, "met": None, "measured": figures}))


if __name__ == "__main__":
    main()
