"""Every format to rows: a line number and the columns of one row, in order.

The format is told by the file's name and, for .txt and unknown endings, by its first line. Text formats are streamed line by
line, Parquet batch by batch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fenlei.data.annotated import without_tasks
from fenlei.data.argilla import without_records
from fenlei.data.chats import with_texts
from fenlei.data.delimited import Row, looks_tabbed, read_csv, read_tabbed, read_tsv
from fenlei.data.encodings import STDIN, Lines, open_bytes, read_lines, source_name
from fenlei.data.growing import open_growing
from fenlei.data.jsonarray import read_json_array
from fenlei.data.parquet import read_parquet, unpacked
from fenlei.errors import DataError

TextReader = Callable[[Lines, Sequence[str]], Iterator[Row]]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".txt")
"""File name endings that are known to hold rows, each also with .gz behind it."""
TASKS, RECORDS = "Label Studio tasks", "Argilla records"
ANNOTATED = (TASKS, RECORDS)
"""Formats whose rows have their answers beside them, where annotators gave any."""
_FASTTEXT_LABEL = re.compile(r"__label__(\S*)(?:\s+|$)")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPECTED_OBJECT = 'expected one object a line, like {"text": "...", "label": "..."}'
MOST_NESTED = 100
"""Brackets within brackets: what reads and writes a row goes down by calls, and Python allows no more than some hundreds."""


@dataclass(frozen=True)
class Table:
    """The rows of an opened file, and what it turned out to be."""

    source: str
    format: str
    encoding: str | None
    """None for Parquet."""
    rows: Iterator[Row]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For columns of ids, the names that the file itself gives them (Parquet written by Hugging Face datasets)."""


@contextmanager
def open_table(
    path: str | Path,
    *,
    named: Sequence[str] = (),
    text_column: str | None = None,
    labelled: bool = True,
    multi_label: bool = False,
    follow: Callable[[], None] | None = None,
    usual_text: Sequence[str] = (),
) -> Iterator[Table]:
    """The rows of a file; `named` are the columns that the user named, which says that a CSV has a header.

    `text_column`: that of the text, as the user named it; a conversation beside it is a column like any other.
    `multi_label`: rows may have any number of labels, so that what a format has no word for, one label or none, is a list as well.
    `follow` is called whenever a file of JSON lines that is still being written has no more for now; such a file has no end.
    `usual_text`: columns that a run learned its texts from; where the first line of a CSV names one, it is a header.
    """
    source = source_name(path)
    if follow is not None:
        with open_growing(path, follow) as growing:
            lines = read_lines(growing, source, head_bytes=0)  # a line alone does not tell the encoding of those that are still to come
            rows, _ = without_tasks(_json_lines(lines, named), source, labelled, multi_label)
            rows, _ = with_texts(rows, source, labelled, text_column)
            yield Table(source, "JSON lines", lines.encoding, rows)
        return
    with open_bytes(path) as stream:
        if suffix_of(path) in (".parquet", ".pq"):
            with unpacked(stream, source) as whole:
                rows, class_names = read_parquet(whole, source)
                rows, are_records = without_records(rows, source, labelled)
                rows, are_chats = with_texts(rows, source, labelled, text_column)
                name = RECORDS if are_records else "conversations" if are_chats else "Parquet"
                yield Table(source, name, None, rows, class_names)
                return
        lines = read_lines(stream, source)
        name, reader = _text_format(path, lines, labelled, multi_label, usual_text)
        rows = reader(lines, named)
        if reader in (_json_array, _json_lines):
            rows, are_tasks = without_tasks(rows, source, labelled, multi_label)
            rows, are_records = without_records(rows, source, labelled)
            rows, are_chats = with_texts(rows, source, labelled, text_column)
            kinds = {TASKS: are_tasks, RECORDS: are_records, "conversations": are_chats}
            name = next((kind for kind, is_it in kinds.items() if is_it), name)
        yield Table(source, name, lines.encoding, rows)


def suffix_of(path: str | Path) -> str:
    """The ending that says the format: that before .gz, .jsonl for stdin."""
    if str(path) == STDIN:
        return ".jsonl"
    name = Path(path).name.lower().removesuffix(".gz")
    return Path(name).suffix


def _text_format(path: str | Path, lines: Lines, labelled: bool, multi_label: bool, usual: Sequence[str]) -> tuple[str, TextReader]:
    suffix = suffix_of(path)
    number, first = next(((place, line) for place, line in enumerate(lines.head, start=1) if line.strip()), (1, ""))
    if suffix in (".jsonl", ".ndjson", ".json"):
        return ("JSON array", _json_array) if first.lstrip().startswith("[") else ("JSON lines", _json_lines)
    if suffix == ".csv":
        return "CSV", partial(read_csv, usual=usual)
    if suffix == ".tsv":
        return "TSV", partial(read_tsv, usual=usual)
    if first.startswith("__label__"):
        return "fastText", partial(_fasttext, multi_label=multi_label)
    if first.startswith("{") and suffix != ".txt":
        return "JSON lines", _json_lines
    if looks_tabbed(lines, labelled):
        return "text and label with a tab between", partial(read_tabbed, usual=usual)
    if labelled and first:
        raise DataError(
            f"{lines.source}:{number}: expected text<TAB>label or `__label__NAME text`, found {first.strip()[:60]!r}; "
            f"other formats go by the file's ending: {', '.join(SUFFIXES)}"
        )
    return "one text a line", _plain


def _json_lines(lines: Lines, _named: Sequence[str]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        yield number, lines.refusal(number) or _object_of(line, f"{lines.source}:{number}")


def _object_of(line: str, where: str) -> dict[str, Any] | DataError:
    try:
        return _checked_object(json.loads(line), line, where)
    except json.JSONDecodeError as error:
        return DataError(f"{where}: broken JSON at place {error.colno}: {error.msg}; {_EXPECTED_OBJECT}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
        return DataError(f"{where}: JSON that cannot be read: {error}; {_EXPECTED_OBJECT}")


def _json_array(lines: Lines, _named: Sequence[str]) -> Iterator[Row]:
    for number, value, written in read_json_array(lines):
        yield number, _checked_object(value, written, f"{lines.source}:{number}")


def _checked_object(value: Any, written: str, where: str) -> dict[str, Any] | DataError:
    """`value` if it is an object of whole characters; `written` is its JSON text."""
    if not isinstance(value, dict):
        return DataError(f"{where}: {_EXPECTED_OBJECT}, found {written.strip()[:60]}")
    if written.count("[") + written.count("{") > MOST_NESTED and _is_too_deep(value):
        return DataError(f"{where}: brackets more than {MOST_NESTED} deep; remove them from the row")
    if _SURROGATE_ESCAPE.search(written) and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        # Such a string cannot be written to a file again, and tokenizers refuse it.
        return DataError(f"{where}: half a character: an escape from \\ud800 to \\udfff without its partner; remove it from the row")
    return value


def _is_too_deep(value: Any) -> bool:
    """Whether more than MOST_NESTED lists and objects lie in one another."""
    level = [value]
    for _ in range(MOST_NESTED):
        within = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [one for values in within for one in values]
    return any(isinstance(one, (dict, list)) for one in level)


def _fasttext(lines: Lines, _named: Sequence[str], *, multi_label: bool) -> Iterator[Row]:
    """Rows whose label is a list in a multi-label file, which the head may show too, else a text: bulk prediction writes it back so."""
    lists = multi_label or any(len(_fasttext_labels(line)[0]) > 1 for line in lines.head)
    for number, line in lines:
        labels, text = _fasttext_labels(line)
        if labels or text:
            label = labels if lists or len(labels) > 1 else "".join(labels)
            yield number, lines.refusal(number) or {"label": label, "text": text}


def _fasttext_labels(line: str) -> tuple[list[str], str]:
    """The labels of a line, and its text."""
    rest = line.strip()
    labels = []
    while match := _FASTTEXT_LABEL.match(rest):
        labels.append(match[1])
        rest = rest[match.end() :]
    return labels, rest


def _plain(lines: Lines, _named: Sequence[str]) -> Iterator[Row]:
    for number, line in lines:
        if line.strip():
            yield number, lines.refusal(number) or {"text": line.rstrip("\r\n")}
