"""The site: every page has its place in both languages, and it builds without a warning where its tools are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
CHINESE = ".zh.md"


def entries(nav: list[dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    """Title and page of every entry; None for a section."""
    for entry in nav:
        for title, below in entry.items():
            yield title, below if isinstance(below, str) else None
            if not isinstance(below, str):
                yield from entries(below)


def test_every_page_stands_in_the_navigation() -> None:
    shown = sorted(page for _, page in entries(SITE["nav"]) if page)
    there = sorted(path.name for path in DOCS.glob("*.md") if not path.name.endswith(CHINESE))
    assert shown == there, "name the page in mkdocs.yml: under `nav`, and its title under `nav_translations`"


@pytest.mark.parametrize("name", ["index.md", f"index{CHINESE}"])
def test_the_first_page_leads_to_every_other(name: str) -> None:
    linked = {target.replace(CHINESE, ".md") for target in re.findall(r"\]\(([^)#:]+)", (DOCS / name).read_text(encoding="utf-8"))}
    assert {page for _, page in entries(SITE["nav"]) if page} - {"index.md"} <= linked


def test_every_title_is_translated() -> None:
    (i18n,) = (plugin["i18n"] for plugin in SITE["plugins"] if isinstance(plugin, dict) and "i18n" in plugin)
    (chinese,) = (one for one in i18n["languages"] if one["locale"] == "zh")
    titles = {title for title, _ in entries(SITE["nav"])} - {"Python"}
    assert titles == chinese["nav_translations"].keys(), "mkdocs.yml: `nav_translations` has a line for every title"


def test_a_chinese_page_is_that_of_an_english_one() -> None:
    alone = [path.name for path in DOCS.glob(f"*{CHINESE}") if not path.with_name(path.name.replace(CHINESE, ".md")).exists()]
    assert alone == []


def test_it_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    for tool in ("mkdocs", "material", "mkdocs_static_i18n", "mkdocstrings"):
        if find_spec(tool) is None:
            pytest.skip("pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "快速上手" in (tmp_path / "zh" / "index.html").read_text(encoding="utf-8")
    reference = (tmp_path / "python" / "index.html").read_text(encoding="utf-8")
    for name in ("fenlei.training.fit.train", "fenlei.inference.classifier.Classifier.predict", "fenlei.errors.DataError"):
        assert f'id="{name}"' in reference
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, page
        assert '<link rel="stylesheet" href="http' not in text, page
