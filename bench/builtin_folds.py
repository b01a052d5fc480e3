"""nano beside TF-IDF on the built-in news without their test rows: python -m bench.builtin_folds [MODEL] [OPTION=VALUE ...].

Five stratified folds of the 700 train rows, each trained on the other four as `fenlei demo` trains. What changes the demo is chosen by this
and not by the test rows.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path

from sklearn.model_selection import StratifiedKFold

from bench.runs import WORK, conclude, given_options, lines_of, name_of, run
from fenlei.cli.demo import TEXT_COLUMN
from fenlei.models.hub import NANO

FOLDS = 5


def main() -> None:
    """Prints a line a fold; the last line is JSON."""
    words = sys.argv[1:]
    model = next((word for word in words if "=" not in word), NANO)
    options = given_options([word for word in words if "=" in word])
    lines = lines_of(Path(str(files("fenlei.data"))) / "builtin" / "train.jsonl")
    labels = [json.loads(line)["label"] for line in lines]
    right, right_by_tfidf = 0.0, 0.0
    for number, parts in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(lines, labels)):
        train, held_out = (WORK / "data" / f"builtin_{part}_{number}.jsonl" for part in ("train", "held_out"))
        train.parent.mkdir(parents=True, exist_ok=True)
        for target, rows in zip((train, held_out), parts, strict=True):
            target.write_text("".join(lines[row] + "\n" for row in rows), encoding="utf-8")
        name = name_of(f"builtin_{number}", {"model": model, **options} if model != NANO else options)
        evaluation, _ = run(name, train, held_out, selecting=None, model=model, tuning="full", text_column=TEXT_COLUMN, **options)
        assert evaluation.baseline
        print(f"fold {number}: {evaluation.metrics.accuracy:.4f}, TF-IDF {evaluation.baseline.accuracy:.4f}", flush=True)
        right += evaluation.metrics.accuracy * len(parts[1])
        right_by_tfidf += evaluation.baseline.accuracy * len(parts[1])
    accuracy = {model: round(right / len(lines), 4), "TF-IDF": round(right_by_tfidf / len(lines), 4)}
    conclude("nano over TF-IDF, five folds of the built-in train rows", right / right_by_tfidf, 1.0, accuracy=accuracy)


if __name__ == "__main__":
    main()
