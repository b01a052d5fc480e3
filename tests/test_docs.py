"""What the documents say of commands, files and modules is so."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import yaml
from typer.models import ArgumentInfo

from fenlei.cli.main import app
from fenlei.config import RunConfig
from fenlei.serving.metrics import Metrics

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
CHINESE = [page for page in PAGES if ".zh" in page.name]
TRAINED_INTO = re.compile(r"(?:fenlei (?:train|extend|distill|tune) .*?--out |\b(?:train|extend|distill|tune)\(.*?\bout=\")([^\s\"]+)")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")  # a command may go on in the next line
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def uncommented(page: Path) -> list[str]:
    """The commands, the Python and the YAML of a page without comments, which are translated."""
    return [re.sub(r"(?:^|\s+)# .*", "", block).strip() for block in blocks(page, "(?:sh|python|yaml)")]


def links(page: Path) -> list[str]:
    """The files that a page points to."""
    return re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))


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


def folders_trained_into(page: Path) -> list[str]:
    """One for each command and call of a page, but for what stands below `# or:`, and for trainings that are gone on with."""
    lines = "".join(blocks(page, "sh") + blocks(page, "python")).splitlines()
    shown = [line for before, line in pairwise(["", *lines]) if not before.startswith(("# or", "# 或")) and "--resume" not in line]
    return [folder for line in shown for folder in TRAINED_INTO.findall(line)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: page.name)
def test_code_typed_from_top_to_bottom_never_trains_into_a_folder_twice(page: Path) -> None:
    """Whoever did would be refused. (In cli.md the examples of a command are alternatives.)"""
    folders = folders_trained_into(page)
    assert sorted(folders) == sorted(set(folders))


def test_folders_trained_into_are_found_at_all() -> None:
    assert sum(len(folders_trained_into(page)) for page in PAGES) > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_rows_to_try_it_with_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    (rows, columns), *others = re.findall(r"`cp (\S+) news\.jsonl`.*`--text-column (\S+) --model nano`", text)
    assert others == []
    with (ROOT / rows).open(encoding="utf-8") as file:
        assert {*columns.split(","), "label"} <= json.loads(next(file)).keys()


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_a_chinese_page_points_to_chinese_ones(page: Path) -> None:
    english = [target for target in links(page) if (page.parent / target).with_suffix(".zh.md").exists()]
    assert english == [], "the site would find the Chinese page, but who reads the files would not"


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_a_chinese_page_shows_the_code_of_the_english_one(page: Path) -> None:
    assert uncommented(page) == uncommented(page.with_name(re.sub(r"\.zh(-CN)?\.md$", ".md", page.name)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_yaml_shown_is_a_configuration(page: Path) -> None:
    for block in blocks(page, "yaml"):
        RunConfig.from_options(yaml.safe_load(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_shown_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def modules_shown(tree: str) -> set[str]:
    """The modules of the plan, by their places: what is indented lies in the folder above it."""
    shown: set[str] = set()
    folders: dict[int, str] = {}
    for line in filter(None, tree.splitlines()):
        depth = len(line) - len(line.lstrip())
        folders = {at: name for at, name in folders.items() if at < depth}
        above = "/".join(folders.values())
        shown |= {f"{above}/{name}" for name in re.findall(r"\w+\.py", line)}
        if folder := re.match(r"\s*([\w/]+)/(?:\s|$)", line):
            folders[depth] = folder[1]
    return shown


def test_the_plan_shows_every_module_in_its_place_and_no_other() -> None:
    shown = modules_shown(blocks(ROOT / "docs" / "architecture.md", "")[1])
    front = ROOT / "src" / "fenlei" / "__init__.py"
    modules = (path for path in front.parent.rglob("*.py") if path == front or path.name != front.name)
    there = {path.relative_to(ROOT).as_posix() for path in modules}
    assert shown == there, f"not shown: {sorted(there - shown)}, not there: {sorted(shown - there)}"


@pytest.mark.parametrize("name", ["service.md", "service.zh.md"])
def test_the_metrics_told_are_those_that_the_service_has(name: str) -> None:
    told = re.findall(r"`(fenlei_\w+)", (ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert sorted(told) == sorted(re.findall(r"^# TYPE (\w+) ", Metrics().render().decode(), re.MULTILINE))


def test_the_oldest_pytorch_is_said_and_no_extra_asks_for_a_newer_one() -> None:
    """Else the lowest versions that are tested, with every extra, are not those of a plain installation."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed, extras = (
        dict(re.findall(r'"([\w-]+)(?:\[[^\]]*\])?>=([\d.]+)', project.split(begin)[1].split(end)[0]))
        for begin, end in (("\ndependencies = [\n", "\n]\n"), ("\n[project.optional-dependencies]\n", "\n[project.scripts]\n"))
    )
    assert not needed.keys() & extras.keys()
    for page in ("platforms.md", "platforms.zh.md"):
        assert f"PyTorch {needed['torch']} " in (ROOT / "docs" / page).read_text(encoding="utf-8")
