"""A model trained on Chinese news alone, asked in English and Japanese: python -m bench.languages [nano] [qwen] [OPTION=VALUE ...].

Trained on the built-in Chinese rows, with LoRA where it is the real model; asked the built-in tests, 350 rows in Chinese and 140 in each of
the others, of the same seven classes. TF-IDF cannot carry words from one language into another: what it has is chance, and characters that
Japanese shares with Chinese.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from bench.runs import WORK, conclude, given_options, name_of, real_model, run
from fenlei.cli.demo import TEXT_COLUMN
from fenlei.report.evaluation import evaluate_run

GOAL = 0.1
"""Of accuracy above TF-IDF, in the language where the model is nearer to it."""
TESTS = {"Chinese": "test.jsonl", "English": "test.en.jsonl", "Japanese": "test.ja.jsonl"}


def main() -> None:
    """Prints a line a model; the last line is JSON."""
    words = sys.argv[1:]
    models = [word for word in words if word in ("nano", "qwen")] or ["nano", "qwen"]
    asked = given_options([word for word in words if "=" in word])
    builtin = Path(str(files("fenlei.data"))) / "builtin"
    figures: dict[str, dict[str, tuple[float, float]]] = {}
    for model in models:
        name = name_of(f"languages_{model}", asked)
        chosen = {"model": "nano", "tuning": "full"} if model == "nano" else {"model": real_model(), "tuning": "lora"}
        run(name, builtin / "train.jsonl", builtin / TESTS["Chinese"], selecting=None, text_column=TEXT_COLUMN, **chosen, **asked)
        figures[model] = {}
        for language, file in TESTS.items():
            found = evaluate_run(WORK / name, builtin / file)
            assert found.baseline
            figures[model][language] = (round(found.metrics.accuracy, 4), round(found.baseline.accuracy, 4))
        told = ", ".join(f"{language} {own:.4f} (TF-IDF {other:.4f})" for language, (own, other) in figures[model].items())
        print(f"{name}: {told}", flush=True)
    above = {model: min(own - other for language, (own, other) in one.items() if language != "Chinese") for model, one in figures.items()}
    best = max(above, key=lambda model: above[model])
    conclude(f"{best} trained on Chinese, accuracy over TF-IDF's in another language", above[best], GOAL, accuracy_and_tfidf=figures)


if __name__ == "__main__":
    main()
