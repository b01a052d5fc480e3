"""What the page of the service makes of a file: its tables.js, run by Node in place of a browser. Skipped where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fenlei.data.readers import read_examples
from fenlei.labels import known_names_in
from fenlei.serving.app import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on the path")


def computed(function: str, *given: Any) -> Any:
    """What a function of tables.js returns."""
    assert NODE is not None
    call = f"process.stdout.write(JSON.stringify({function}(...{json.dumps(given)})))"
    done = subprocess.run([NODE, "-e", (PAGE / "tables.js").read_text("utf-8") + call], capture_output=True, check=True)
    return json.loads(done.stdout)


TABLES = {
    "a quote that belongs to a text.tsv": 'text\tlabel\n"国足" 取胜\ta\n二\tb\n"三\ta\n',
    "quotes around line breaks.tsv": 'text\tlabel\n"一\n二"\ta\n三\tb\n',
    "quoted for no reason.tsv": 'text\tlabel\n"说 ""好"""\ta\n二\tb\n',
    "semicolons.csv": "text;label\n一, 二;a\n三;b\n",
    "tabs.csv": "text\tlabel\n一, 二\ta\n三\tb\n",
    "no header.csv": "国足取胜,体育\n央行降息,财经\n主场告负,体育\n",
    "no header and nothing again.csv": "国足取胜,体育\n央行降息,财经\n",
    "no header and one column.csv": "国足取胜\n央行降息\n",
    "a class that is called as a column is.csv": "review,好看\ntext,难看\nreview,一般\n",
    "text and label.txt": "国足取胜\t体育\n央行降息\t财经\n",
    "label and text.txt": "体育\t国足\t取胜\n体育\t主场告负\n财经\t央行降息\n",
    "a header.txt": "label\ttext\n体育\t国足取胜\n",
    "texts with tabs.txt": f"{'国' * 40}\t{'足' * 50}\n{'央' * 40}\t{'行' * 50}\n",
    "fastText.txt": "__label__体育 国足 取胜\n__label__财经 央行降息\n",
    "lines.json": '{"text": "国足取胜"}\n{"text": "央行降息"}\n',
    "an array.json": '[{"text": "国足取胜"},\n {"text": "央行降息"}]\n',
    "blanks around names.csv": " Text ,id\n国足取胜,a-long-id-of-a-row\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_the_rows_that_fenlei_reads(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    rows = computed("readRows", name, TABLES[name])
    column = computed("likelyColumn", rows)["likely"]
    expected = list(read_examples(tmp_path / name, labelled=False))
    assert [list(row.values()) for row in rows] == [list(example.columns.values()) for example in expected]
    assert [row[column] for row in rows] == [example.text for example in expected]


def test_a_first_row_with_a_column_of_the_run_has_the_names() -> None:
    content = "来源,摘要\n一,二\n"
    assert computed("readRows", "a.csv", content, ["摘要"]) == [{"来源": "一", "摘要": "二"}]
    assert len(computed("readRows", "a.csv", content, [])) == 2


def test_a_label_with_a_comma_in_it_is_one() -> None:
    typed, known = "吃喝、玩乐, 体育，吃喝 、天气,,", ["吃喝、玩乐", "体育", "吃喝"]
    assert computed("namesIn", typed, known) == known_names_in(typed, known) == ["吃喝、玩乐", "体育", "吃喝", "天气"]


def test_numbers_with_a_sign_are_no_formulas() -> None:
    saved = computed("toCsv", [{"text": "一", "a": "-0.5", "b": "+3", "c": "-1e-4", "d": "=1+1", "e": "-1+A1"}])
    assert saved.splitlines()[1] == "一,-0.5,+3,-1e-4,'=1+1,'-1+A1"
