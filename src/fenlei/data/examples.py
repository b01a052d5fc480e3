"""One row of a labelled file, as the rest of the house sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """A text with its label (None where the file has none), and where it came from."""

    text: str
    label: str | None
    source: str
    """The file, as the user named it."""
    line: int
    """Its line in the file, counted from 1 (for Parquet: the row)."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Every column of the row as read, in order; bulk prediction writes them back."""
    candidates: tuple[str, ...] | None = None
    """The labels that the row itself offers (Fudan files); None where it offers none. Methods with fixed labels do not look at them."""

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"
