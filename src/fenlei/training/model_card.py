"""The README.md of a run: what it is, how good, trained on what, how to use it."""

from __future__ import annotations

from typing import Any

from fenlei.evaluation.metrics import Metrics


def model_card(manifest: dict[str, Any], metrics: Metrics, baseline: Metrics | None) -> str:
    """Markdown with the front matter that the hubs read."""
    rows, base = manifest["data"]["rows"], manifest["base_model"]
    revision = f" at revision {base['revision']}" if base["revision"] else ""
    per_class = "\n".join(f"| {c.name} | {c.precision:.3f} | {c.recall:.3f} | {c.f1:.3f} | {c.support} |" for c in metrics.classes)
    low, high = metrics.accuracy_interval
    beside = f"| TF-IDF baseline | {baseline.accuracy:.3f} | {baseline.macro_f1:.3f} |\n" if baseline else ""
    libraries = ", ".join(f"{name} {version}" for name, version in manifest["libraries"].items())
    return f"""---
library_name: fenlei
pipeline_tag: text-classification
---

# Text classifier: {", ".join(manifest["labels"][:12])}{" ..." if len(manifest["labels"]) > 12 else ""}

{base["name"]}{revision}, {_tuning(manifest)} ({manifest["parameters"]["trainable"]:,} of
{manifest["parameters"]["all"]:,} parameters trained), on {rows["train"]:,} rows. Trained with fenlei on {manifest["created"]}.

| on {metrics.rows:,} dev rows that selected the checkpoint | accuracy | macro F1 |
|---|---|---|
| this model | {metrics.accuracy:.3f} ({low:.3f} to {high:.3f}) | {metrics.macro_f1:.3f} |
{beside}
| class | precision | recall | F1 | rows |
|---|---|---|---|---|
{per_class}

Confidence: {"calibrated" if manifest["calibrated"] else "not calibrated"}, temperature {manifest["temperature"]:.3f}, expected calibration
error {metrics.expected_calibration_error:.3f}. Where an input would be longer than {manifest["max_length"]} tokens,
{manifest["length_rule"]}.

```python
from fenlei import Classifier

classifier = Classifier.load("this/folder")
classifier.predict(["..."])
```

Made with {libraries}.
"""


def _tuning(manifest: dict[str, Any]) -> str:
    if manifest["method"] == "head":
        return f"{manifest['tuning']} tuning with a {manifest['head']} head"
    tuned = "not tuned" if manifest["tuning"] == "none" else f"{manifest['tuning']} tuning"
    return f"{tuned}, answering by the probability of each label"
