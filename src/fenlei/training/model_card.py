"""The README.md of a run: what it is, how good, trained on what, how to use it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fenlei.artifact import write_text
from fenlei.data.labelling import Labelling
from fenlei.evaluation.calibration import calibration_told
from fenlei.evaluation.figures import AnyMetrics
from fenlei.evaluation.multi_label import MultiLabelMetrics

NOT_CALIBRATED = "Its confidence says which answers are surer than others, not how often they are right."


def describe(out: Path, manifest: dict[str, Any], metrics: AnyMetrics, baseline: AnyMetrics | None, history: list[dict[str, Any]]) -> None:
    """Writes what a run says of itself: its figures with the log of its training, `metrics.json`, and README.md."""
    figures = {"selecting": metrics.to_json(), "baseline": baseline.to_json() if baseline else None, "history": history}
    write_text(out / "metrics.json", json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    write_text(out / "README.md", model_card(manifest, metrics, baseline))


def model_card(manifest: dict[str, Any], metrics: AnyMetrics, baseline: AnyMetrics | None) -> str:
    """Markdown with the front matter that the hubs read."""
    base = manifest["base_model"]
    revision = f" at revision {base['revision']}" if base["revision"] else ""
    per_class = "\n".join(f"| {escaped(c.name)} | {c.precision:.3f} | {c.recall:.3f} | {c.f1:.3f} | {c.support} |" for c in metrics.classes)
    asked = '"..."' if manifest.get("pair_column") is None else '("...", "...")'
    libraries = ", ".join(f"{name} {version}" for name, version in manifest["libraries"].items())
    return f"""---
library_name: fenlei
pipeline_tag: text-classification
---

# Text classifier: {escaped(", ".join(manifest["labels"][:12]))}{" ..." if len(manifest["labels"]) > 12 else ""}

{base["name"]}{revision}, {_tuning(manifest)}, {_made(manifest)} with fenlei on {manifest["created"]}.

{_headline(manifest, metrics, baseline)}
| class | precision | recall | F1 | rows |
|---|---|---|---|---|
{per_class}

Confidence: {calibration_told(manifest)}, expected calibration
error {metrics.expected_calibration_error:.3f}. Where an input would be longer than {manifest["max_length"]} tokens,
{manifest["length_rule"]}.

## Intended use

{_use(manifest)}

```python
from fenlei import Classifier

classifier = Classifier.load("this/folder")
classifier.predict([{asked}])
```

## Data

{_data(manifest["data"])}

Made with {libraries}.
"""


def escaped(text: str) -> str:
    """On one line, with nothing that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~$])", r"\\\1", " ".join(text.split()))


def _use(manifest: dict[str, Any]) -> str:
    """What it is for, how far its confidence goes, and what it is not for."""
    many, rows = Labelling.from_json(manifest).multi_label, manifest["data"]["rows"]
    texts = "texts" if manifest.get("pair_column") is None else "pairs of texts"
    given = "any number of them, maybe none" if many else "one of them, also where none fits"
    lines = [f"For {texts} like those of the data below, in {len(manifest['labels'])} classes: each gets {given}."]
    if manifest["method"] == "generate":
        lines.append("It can be asked among other labels, and then answers with a confidence that nothing was measured of.")
    if manifest["calibrated"]:
        told = " that nothing else was chosen by: of rows like these answered with 0.9, about nine in ten should be right."
        if manifest.get("extended_from", {}).get("dev_may_have_trained"):
            told = ", some of which it may have learned from before: it is likely surer than it should be."
        lines.append(f"Its confidence is fitted on {rows['calibrating']:,} rows{told}")
    else:
        lines.append(NOT_CALIBRATED)
    if manifest.get("abstention"):
        least = manifest["abstention"]["min_confidence"]
        lines.append(f"Answers below a confidence of {least:.4f} are marked as abstained, for a person to look at.")
    lines.append(
        f"Not for {texts} of another kind, language or time before it is measured on some of them (`fenlei evaluate`), and not for "
        "decisions about people that nobody looks at."
    )
    return "\n".join(lines)


def _data(data: dict[str, Any]) -> str:
    """The files, the rows of each part, and how long and of which classes those of train are, as far as the run wrote it down."""
    rows, names = data["rows"], [Path(name).name for name in data["files"]]
    shown = escaped(", ".join(names[:8]) or "the data") + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    parts = f"{rows['train']:,} rows of train, {rows['selecting'] + rows['calibrating']:,} of dev ({rows['selecting']:,} select, "
    lines = [f"{shown}: {parts}{rows['calibrating']:,} calibrate), {rows['test']:,} of test."]
    if "characters" in data:
        told = data["characters"]
        lines.append(f"Texts of train have a median of {told['median']:,} characters, at most {told['longest']:,}.")
    if "classes" in data:
        lines += ["", "| class in the data | rows of train |", "|---|---|"]
        lines += [f"| {escaped(name)} | {count:,} |" for name, count in data["classes"].items()]
    return "\n".join(lines)


def _headline(manifest: dict[str, Any], metrics: AnyMetrics, baseline: AnyMetrics | None) -> str:
    """A row for the model and one for its baseline."""
    shown = {"micro F1": "micro_f1", "macro F1": "macro_f1", "all labels right": "accuracy"}
    shown = shown if isinstance(metrics, MultiLabelMetrics) else {"accuracy": "accuracy", "macro F1": "macro_f1"}
    selected = "" if manifest["tuning"] == "none" else " that selected the checkpoint"
    lines = [
        f"| on {metrics.rows:,} dev rows{selected} | {' | '.join(shown)} |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for name, one in (("this model", metrics), ("TF-IDF baseline", baseline)):
        if one is not None:
            cells = [f"{getattr(one, key):.3f}" + (_spread(one, key) if one is metrics else "") for key in shown.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(metrics: AnyMetrics, key: str) -> str:
    """The 95 % interval of the first figure that a card shows; other figures stand alone."""
    first = "micro_f1" if isinstance(metrics, MultiLabelMetrics) else "accuracy"
    bounds = metrics.accuracy_interval if key == "accuracy" else metrics.intervals.get(key)
    return f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if key == first and bounds else ""


def _made(manifest: dict[str, Any]) -> str:
    """What became of its parameters."""
    parameters = manifest["parameters"]
    if manifest["tuning"] == "none":
        return f"{parameters['all']:,} parameters, made into a run"
    return f"{parameters['trainable']:,} of {parameters['all']:,} parameters trained on {manifest['data']['rows']['train']:,} rows"


def _tuning(manifest: dict[str, Any]) -> str:
    if manifest["method"] == "head":
        return f"{manifest['tuning']} tuning with a {manifest['head']} head"
    tuned = "not tuned" if manifest["tuning"] == "none" else f"{manifest['tuning']} tuning"
    return f"{tuned}, answering by the probability of each label"
