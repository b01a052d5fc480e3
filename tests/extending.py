"""What tests of `fenlei extend` share: rows of a new class, and options that keep them short."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEW = "天气"
QUICK: dict[str, Any] = {"device": "cpu", "baseline": False}


def weather(count: int = 20) -> list[dict[str, str]]:
    places, skies = ("北方", "华南", "山区", "沿海", "高原"), ("晴转多云", "有小雨", "气温骤降", "大风降温")
    return [{"text": f"{place}{sky}，气象台发布预报", "label": NEW} for place in places for sky in skies][:count]


def write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
