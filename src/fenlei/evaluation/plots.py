"""Pictures of metrics as PNG, drawn without a display and without touching matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font

from fenlei.evaluation.metrics import Metrics

FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Microsoft YaHei", "PingFang SC",
    "Hiragino Sans GB", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR",
    "Source Han Sans", "SimHei", "SimSun", "Heiti SC", "STHeiti", "Songti SC", "AR PL UMing CN", "Droid Sans Fallback", "Yu Gothic",
    "Malgun Gothic", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans Devanagari", "Tahoma", "Nirmala UI", "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""Families tried in turn; the first that has every character of the labels is taken."""

COUNTED_CLASSES = 30
"""Above this many classes the cells are too small for their counts."""
NAMED_CLASSES = 200
"""Above this many there is no room for their names either."""
LONGEST_NAME = 16


@dataclass(frozen=True)
class Plot:
    """A picture, and what the reader has to be told of it."""

    png: bytes
    note: str | None


def confusion_plot(metrics: Metrics) -> Plot:
    """The confusion matrix as a heat map: rows are the labels given, columns the labels predicted, shade is the share of the row.

    The note says which class is which, where the ticks carry numbers.
    """
    ticks, font, note = ticks_of(metrics.names)
    side = min(24.0, max(5.0, 0.45 * len(ticks) + 2.5))
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    _draw_confusion(figure.add_subplot(), metrics.confusion, ticks, font)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return Plot(buffer.getvalue(), note)


def ticks_of(names: Sequence[str]) -> tuple[list[str], FontProperties | None, str | None]:
    """What stands beside rows and columns, in which font, and what the reader has to be told of it.

    Class numbers, where no installed font has the characters of the names, or names cut short would be alike.
    """
    short = [_short(name) for name in names]
    font = font_for(short)
    if font is None:
        why = "No installed font has the characters of the class names"
    elif len(set(short)) < len(short):
        why = "Class names cut short would be alike"
    else:
        return short, font, None
    shown = ", ".join(f"{at} = {name}" for at, name in enumerate(names, start=1))
    note = f"{why}, so confusion.png carries class numbers: {shown}" if len(names) <= NAMED_CLASSES else None
    return [str(at) for at in range(1, len(names) + 1)], font, note


def font_for(names: Iterable[str], families: Sequence[str] = FONTS) -> FontProperties | None:
    """The first installed font among `families` that has every character of the names; None where there is none."""
    needed = {ord(character) for name in names for character in name if not character.isspace()}
    for path in _installed(tuple(families)):
        if needed <= _characters_of(path):
            return FontProperties(fname=path)
    return None


def _draw_confusion(axes: Axes, confusion: np.ndarray, ticks: Sequence[str], font: FontProperties | None) -> None:
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    size = 9 if len(ticks) <= COUNTED_CLASSES else 6
    # parse_math: '$' in a label is no formula
    text: dict[str, Any] = {"fontproperties": font or FontProperties(), "fontsize": size, "parse_math": False}
    named = range(len(ticks) if len(ticks) <= NAMED_CLASSES else 0)
    axes.set_xticks(named, ticks[: len(named)], rotation=45, ha="right", rotation_mode="anchor", **text)
    axes.set_yticks(named, ticks[: len(named)], **text)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(ticks) > COUNTED_CLASSES:
        return
    for row, column in zip(*np.nonzero(confusion), strict=True):
        colour = "white" if shares[row, column] > 0.65 else "#1f2933"  # paler cells are too light for white
        axes.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", fontsize=8, color=colour)


def _short(name: str) -> str:
    """Cut in the middle: names of one family begin alike."""
    one_line = " ".join(name.split())
    half = LONGEST_NAME // 2
    return one_line if len(one_line) <= LONGEST_NAME else f"{one_line[: half - 1]}…{one_line[-half:]}"


def _installed(families: tuple[str, ...]) -> list[str]:
    """Files of the installed fonts of these families, upright and of normal weight first, in the order of the families."""
    found: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.style != "normal", str(entry.weight) not in ("400", "normal"))):
        found.setdefault(entry.name, entry.fname)
    return [found[family] for family in families if Path(found.get(family, "")).is_file()]  # matplotlib's list may be older than the disk


@lru_cache(maxsize=32)
def _characters_of(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())
