"""What a run says of the rows of a dev file that neither selected nor calibrated it: those that its confidence can be measured on.

Which rows did is kept in the run. Its answers are those of an evaluation that has all the others, else it is asked, once: the answers are
kept in the run's folder, and a prediction that is cut off is gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.runs import lines_of
from fenlei.artifact import read_manifest
from fenlei.data.readers import read_examples
from fenlei.inference.bulk import predict_file
from fenlei.inference.classifier import Classifier
from fenlei.inference.trust import DevScores

SMALLEST = 5e-7
"""What a probability may be that is written as 0.000000."""

Known = tuple[str, str]
"""A row as it is recognised in every file: text and label."""


def unfitted_scores(run: Path, dev: Path) -> DevScores:
    """Logarithms of the run's probabilities, which six decimals bound below, for the rows of `dev` that fitted nothing, in their order.

    DataError where `dev`, or a file whose rows selected or calibrated, cannot be read.
    """
    manifest = read_manifest(run)
    labels = list(manifest["labels"])
    rows = unfitted_rows(manifest, dev)
    told = _answers(run, manifest, rows)
    shares = np.array([[told[row][name] for name in labels] for row in rows])
    return DevScores(np.log(np.maximum(shares, SMALLEST)), np.array([labels.index(label) for _, label in rows]))


def unfitted_rows(manifest: Mapping[str, Any], dev: Path) -> list[Known]:
    """The rows of `dev` without those that the manifest says fitted the run, and without any that are equal to such a row."""
    fitted: set[Known] = set()
    for part in ("selecting", "calibrating"):
        for source, ranges in manifest["data"][part].items():
            lines = set(_lines(ranges))
            fitted |= {known for line, known in _known(Path(source)) if line in lines}
    return [known for _, known in _known(dev) if known not in fitted]


def _known(source: Path) -> Iterator[tuple[int, Known]]:
    """Line and content of each row."""
    for example in read_examples(source):
        yield example.line, (example.text, str(example.label))


def _lines(ranges: str) -> Iterator[int]:
    """The numbers of '1-3,7'."""
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _answers(run: Path, manifest: Mapping[str, Any], rows: Sequence[Known]) -> dict[Known, dict[str, float]]:
    """The probabilities of each row, by label."""
    asked = run / "report" / f"unfitted_{manifest['sha256'][:12]}.jsonl"  # another training's answers have another name
    for kept in (run / "report" / "predictions.jsonl", asked):
        told = _told(kept) if kept.exists() else {}
        if told.keys() >= set(rows):
            return told
    source = asked.with_suffix(".rows.jsonl")
    source.parent.mkdir(exist_ok=True)
    content = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)
    if not source.exists() or source.read_text("utf-8") != content:  # written anew it would be another file to what was begun on it
        source.write_text(content, "utf-8")
    print(f"asking {run} about {len(rows):,} rows", flush=True)
    predict_file(Classifier.load(run), source, asked, probabilities=True, announce=print)
    source.unlink()
    return _told(asked)


def _told(file: Path) -> dict[Known, dict[str, float]]:
    """What a file of predicted rows says, by row."""
    rows = [json.loads(line) for line in lines_of(file)]
    return {(row["text"], row["label"]): row["probabilities"] for row in rows}
