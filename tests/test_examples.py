"""The commands and the Python of the first pages do what the pages say, one after the other, in a folder with such files.

A tiny model stands in for nano. What needs a hub, a service or a run that such a command would have made is left out.
The Chinese pages show the same code, as test_docs.py sees to.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from test_docs import ROOT, blocks, commands

from fenlei.cli.main import main
from fenlei.models import hub

PAGES = {"index.md": 2, "quickstart.md": 10}
"""How many commands of a page are run: fewer would be none that anybody misses."""
ELSEWHERE = {"serve", "download", "demo", "distill", "tune"}
"""Commands with tests of their own: they need a network or a port, or take long."""


@pytest.fixture
def folder(tmp_path: Path, tiny_qwen: Path, toy_rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "NANO_FOLDER", tiny_qwen)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in toy_rows]
    for name in ("news.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    texts = [json.dumps({"text": row["text"]}, ensure_ascii=False) + "\n" for row in toy_rows]
    (tmp_path / "pool.jsonl").write_text("".join(texts), encoding="utf-8")
    table(tmp_path / "news.csv", [{"title": row["text"][:4], "body": row["text"], "category": row["label"]} for row in toy_rows])
    table(tmp_path / "new.csv", [{"number": str(at), "text": row["text"]} for at, row in enumerate(toy_rows)])
    (tmp_path / "THUCNews").mkdir()
    (tmp_path / "THUCNews" / "train.txt").write_text("".join(f"{row['text']}\t{row['label']}\n" for row in toy_rows), encoding="utf-8")
    return tmp_path


def table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def can_run(words: list[str]) -> bool:
    """Whether everything that the command names is here, or is made by it."""
    if words[0] in ELSEWHERE or any(word in ("--url", "--resume", "-") for word in words):
        return False
    made = {words[at + 1] for at, word in enumerate(words[:-1]) if word == "--out"}
    named = [word for word in words[1:] if ("/" in word or word.endswith((".jsonl", ".csv", ".yaml"))) and word not in made]
    return all(Path(word).exists() for word in named)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.timeout(400)
def test_the_commands_of_a_page_work(page: str, folder: Path) -> None:
    path = ROOT / "docs" / page
    for block in blocks(path, "yaml"):
        (folder / block.partition("\n")[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    ran = []
    for words in filter(can_run, commands(path)):
        assert main(cheaper(words)) == 0, words
        ran.append(words)
    assert len(ran) >= PAGES[page], ran


def cheaper(words: list[str]) -> list[str]:
    """A training of few steps: what is shown is that the command does what it says."""
    return [*words, "--max-steps", "3", "--max-length", "24"] if words[0] == "train" else words


def test_the_python_of_the_quickstart_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "quickstart.md", "python"):
        if "Qwen/" not in block:
            exec(compile(block, "quickstart.md", "exec"), names)
            ran += 1
    assert ran
    printed = capsys.readouterr().out
    assert any(label in printed for label in ("财经", "体育", "科技"))
