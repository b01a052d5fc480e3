"""The README.md of an exported folder: that of the run, for those who load it with transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fenlei.artifact import write_text
from fenlei.hubs.repository import is_id, split_prefix

USAGE = """```python
from transformers import pipeline

classify = pipeline("text-classification", "this/folder", top_k=None)
classify({asked})
```"""


def write_card(run: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Writes it where the run has one."""
    card = run / "README.md"
    if card.is_file():
        write_text(folder / "README.md", stock_card(card.read_text(encoding="utf-8"), manifest))


def stock_card(card: str, manifest: dict[str, Any]) -> str:
    """The run's card with the front matter and, for a classifier, the usage of a stock folder."""
    base = split_prefix(manifest["base_model"]["name"])[1]
    known = [f"base_model: {base}"] if not manifest["base_model"].get("local", True) and is_id(base) and "/" in base else []
    front = "\n".join(["library_name: transformers", "tags: [fenlei]", *known])
    usage = _usage(manifest)
    card = card.replace("library_name: fenlei", front, 1)
    return card if manifest["method"] == "generate" else re.sub(r"```python\n.*?\n```", lambda _: usage, card, count=1, flags=re.DOTALL)


def _usage(manifest: dict[str, Any]) -> str:
    """How the folder is asked, a text or a pair."""
    return USAGE.replace("{asked}", '"..."' if manifest.get("pair_column") is None else '{"text": "...", "text_pair": "..."}')
