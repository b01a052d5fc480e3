"""Broken files of every format: python -m bench.readers_fuzz [--quick] [--seconds N].

Files of rows are written in every format, then bytes are changed, taken out, put in and repeated; hypothesis chooses where and shrinks
what it finds. Reading gives rows or a DataError that begins with the file's name, never another error; where reading goes on after bad
rows, the rows that a strict reading gave come again, in order. The figure: rounds without a finding over all rounds (10 minutes of them).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from bench.runs import conclude
from fenlei.data.readers import read_examples
from fenlei.errors import DataError

EXAMPLES_A_ROUND = 300
Rows = list[tuple[str, str]]


def delimited(delimiter: str) -> Callable[[Rows], bytes]:
    """CSV or TSV with a header."""

    def write(rows: Rows) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *rows])
        return text.getvalue().encode("utf-8", "replace")

    return write


def parquet(rows: Rows) -> bytes:
    """Parquet."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [one for one, _ in rows], "label": [one for _, one in rows]}), sink)
    return sink.getvalue()


def objects(rows: Rows) -> list[dict[str, str]]:
    """Rows as JSON objects."""
    return [{"text": text, "label": label} for text, label in rows]


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    "jsonl": lambda rows: "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects(rows)).encode("utf-8", "replace"),
    "json": lambda rows: json.dumps(objects(rows), ensure_ascii=False, indent=1).encode("utf-8", "replace"),
    "csv": delimited(","),
    "tsv": delimited("\t"),
    "txt": lambda rows: "".join(f"{text}\t{label}\n" for text, label in rows).encode("utf-8", "replace"),
    "fasttext.txt": lambda rows: "".join(f"__label__{label} {text}\n" for text, label in rows).encode("utf-8", "replace"),
    "gb.jsonl": lambda rows: "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects(rows)).encode("gb18030", "replace"),
    "jsonl.gz": lambda rows: gzip.compress("".join(json.dumps(one) + "\n" for one in objects(rows)).encode()),
    "parquet": parquet,
    "studio.json": lambda rows: json.dumps(
        [
            {"data": {"text": text}, "annotations": [{"result": [{"type": "choices", "value": {"choices": [label]}}]}]}
            for text, label in rows
        ]
    ).encode(),
}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
LABEL = st.sampled_from(["财经", "体育", "科技"])
CHANGE = st.tuples(
    st.sampled_from(["flip", "cut", "put", "repeat"]), st.integers(0, 1 << 20), st.integers(1, 40), st.binary(min_size=1, max_size=8)
)


def changed(content: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    """The content after every change."""
    for kind, place, size, piece in changes:
        at = place % (len(content) + 1)
        if kind == "flip" and at < len(content):
            content = content[:at] + bytes([content[at] ^ (1 << size % 8)]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + size :]
        elif kind == "put":
            content = content[:at] + piece + content[at:]
        elif kind == "repeat":
            content = content[:at] + content[at : at + size] * 3 + content[at + size :]
    return content


def read(path: Path, **options: Any) -> tuple[list[str], str | None]:
    """Texts, and the refusal that ended the reading."""
    texts: list[str] = []
    try:
        texts.extend(example.text for example in read_examples(path, **options))
    except DataError as error:
        return texts, str(error)
    return texts, None


def check(path: Path, counts: Counter[str], labelled: bool) -> None:
    """The promises of the readers, for one file."""
    strict: list[str] = []
    refusal = None
    try:
        for example in read_examples(path, labelled=labelled):
            strict.append(example.text)
    except DataError as error:
        refusal = str(error)
    bad: list[int] = []
    lenient, ended = read(path, labelled=labelled, on_bad_row=lambda line, error: bad.append(line))
    for said in (refusal, ended):
        assert said is None or said.startswith(str(path)), said
    assert lenient[: len(strict)] == strict
    assert bool(bad) or lenient == strict
    assert all(line >= 1 for line in bad)
    assert all(text.strip() for text in lenient)
    counts["refused" if ended else "rows set aside" if bad else "read"] += 1


def one_round(number: int, folder: Path, counts: Counter[str]) -> None:
    """EXAMPLES_A_ROUND files."""

    @seed(number)
    @settings(max_examples=EXAMPLES_A_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        name=st.sampled_from(sorted(FORMATS)),
        rows=st.lists(st.tuples(TEXT, LABEL), min_size=1, max_size=12),
        changes=st.lists(CHANGE, max_size=6),
        labelled=st.booleans(),
    )
    def broken(name: str, rows: Rows, changes: list[tuple[str, int, int, bytes]], labelled: bool) -> None:
        path = folder / f"rows.{name}"
        path.write_bytes(changed(FORMATS[name](rows), changes))
        check(path, counts, labelled)

    broken()


def main() -> int:
    """1 where something was found; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--seconds", type=float, default=600.0)
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    rounds = findings = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while rounds == 0 or (not asked.quick and time.monotonic() - began < asked.seconds):
            rounds += 1
            try:
                one_round(rounds, Path(folder), counts)
            except Exception as error:  # noqa: BLE001 - hypothesis shows the smallest file; the next round looks for others
                findings += 1
                print(f"  round {rounds}: {type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n    ", flush=True)
    conclude(
        "rounds of broken files without a finding",
        (rounds - findings) / rounds,
        1.0,
        rounds=rounds,
        files=sum(counts.values()),
        seconds=round(time.monotonic() - began, 1),
        **counts,
    )
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
