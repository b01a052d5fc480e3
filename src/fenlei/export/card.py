"""The README.md of an exported folder: that of the run, for those who load it with transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fenlei.artifact import write_text
from fenlei.hubs.repository import is_id, split_prefix
from fenlei.training.model_card import NOT_CALIBRATED

USAGE = """```python
from transformers import pipeline

classify = pipeline("text-classification", "this/folder", top_k=None)
classify({asked})
```"""
PROMPTED = """`prompt.json` has the prompt, with a place for the text, and the labels. With `vllm serve this/folder`, structured choice
keeps the answer to the labels."""


def write_card(run: Path, folder: Path, manifest: dict[str, Any], notes: Sequence[str]) -> None:
    """Writes it where the run has one."""
    card = run / "README.md"
    if card.is_file():
        write_text(folder / "README.md", stock_card(card.read_text(encoding="utf-8"), manifest, notes))


def stock_card(card: str, manifest: dict[str, Any], notes: Sequence[str] = ()) -> str:
    """The run's card with the front matter and the usage of a stock folder, without what such a folder does not do; `notes` at its end."""
    base = split_prefix(manifest["base_model"]["name"])[1]
    known = [f"base_model: {base}"] if not manifest["base_model"].get("local", True) and is_id(base) and "/" in base else []
    front = "\n".join(["library_name: transformers", "tags: [fenlei]", *known])
    writes = manifest["method"] == "generate"
    usage = PROMPTED if writes else _usage(manifest)
    card = card.replace("library_name: fenlei", front, 1)
    card = re.sub(r"```python\n.*?\n```", lambda _: usage, card, count=1, flags=re.DOTALL)
    card = re.sub(r"^Answers below a confidence of .*\n", "", card, count=1, flags=re.MULTILINE)
    if writes:  # temperature and summands are no weights
        card = re.sub(r"^Confidence: .*\nerror \S+ ", "", card, count=1, flags=re.MULTILINE)
        card = re.sub(r"^Its confidence is fitted on .*", NOT_CALIBRATED, card, count=1, flags=re.MULTILINE)
    return card + ("\n## This folder beside the run\n\n" + "".join(f"- {note}\n" for note in notes) if notes else "")


def _usage(manifest: dict[str, Any]) -> str:
    """How the folder is asked, a text or a pair."""
    return USAGE.replace("{asked}", '"..."' if manifest.get("pair_column") is None else '{"text": "...", "text_pair": "..."}')
