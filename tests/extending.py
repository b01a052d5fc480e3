"""What tests of `fenlei extend` share: rows of a new class, and options that keep them short."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fenlei.artifact import read_manifest, write_manifest

NEW = "天气"
QUICK: dict[str, Any] = {"device": "cpu", "baseline": False}


def weather(count: int = 20) -> list[dict[str, str]]:
    places, skies = ("北方", "华南", "山区", "沿海", "高原"), ("晴转多云", "有小雨", "气温骤降", "大风降温")
    return [{"text": f"{place}{sky}，气象台发布预报", "label": NEW} for place in places for sky in skies][:count]


def with_other_files(run: Path, to: Path) -> Path:
    """A copy of a run whose data files have other rows now: none of its dev rows is found again."""
    shutil.copytree(run, to)
    manifest = read_manifest(to)
    write_manifest(to, {**manifest, "data": {**manifest["data"], "files": dict.fromkeys(manifest["data"]["files"], "other rows")}})
    return to
