"""What the documents say of commands, files and modules is so."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.models import ArgumentInfo

from fenlei.cli.main import app
from fenlei.config import RunConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every fenlei command in the shell blocks of a page, without what it is piped to."""
    for line in "".join(blocks(page, "sh")).splitlines():
        for part in re.split(r"\s[|>]\s|&&", line.partition("  #")[0]):
            words = shlex.split(part)
            if words[:1] == ["fenlei"] and "[OPTIONS]" not in words:
                yield words[1:]


def flags_of(command: str) -> set[str]:
    functions = {one.callback.__name__: one.callback for one in app.registered_commands if one.callback}
    found = set()
    for name, one in inspect.signature(functions[command], eval_str=True).parameters.items():
        info = get_args(one.annotation)[1]
        if not isinstance(info, ArgumentInfo):
            declared = [flag for given in (info.default, *(info.param_decls or ())) if isinstance(given, str) for flag in given.split("/")]
            found |= set(declared or ["--" + name.replace("_", "-")])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for name, *words in commands(page):
        unknown = {word for word in words if word.startswith("--")} - flags_of(name)
        assert not unknown, f"{page.name}: fenlei {name} has no {unknown}"


def test_commands_are_found_at_all() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_yaml_shown_is_a_configuration(page: Path) -> None:
    for block in blocks(page, "yaml"):
        RunConfig.from_options(yaml.safe_load(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_shown_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_the_plan_shows_every_module_and_no_other() -> None:
    tree = blocks(ROOT / "docs" / "architecture.md", "")[1]
    shown = set(re.findall(r"[\w]+\.py", tree))
    there = {path.name for path in (ROOT / "src" / "fenlei").rglob("*.py")}
    assert shown == there, f"not shown: {sorted(there - shown)}, not there: {sorted(shown - there)}"
