"""What Parquet, numpy and Python hold, written so that any reader of JSON or CSV gets it back."""

from __future__ import annotations

import csv
import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fenlei.data.jsonvalues import json_value, to_json
from fenlei.data.readers import read_examples
from fenlei.inference.bulk import predict_file
from fenlei.inference.prediction import Prediction

EAST = dt.timezone(dt.timedelta(hours=8))
CASES: dict[str, tuple[Any, Any]] = {
    "date": (dt.date(2026, 11, 21), "2026-11-21"),
    "moment": (dt.datetime(2026, 11, 21, 8, 30, tzinfo=EAST), "2026-11-21T08:30:00+08:00"),
    "time": (dt.time(8, 30, 0, 5), "08:30:00.000005"),
    "duration": (dt.timedelta(minutes=1, milliseconds=500), 60.5),
    "decimal": (Decimal("12345678901234567890.10"), "12345678901234567890.10"),
    "bytes": (b"\xff\x00", "/wA="),
    "numpy integer": (np.int64(7), 7),
    "numpy float32": (np.float32(0.5), 0.5),
    "numpy bool": (np.True_, True),
    "numpy array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "numpy NaN": (np.float32("nan"), None),
    "numpy NaNs": (np.array([1.0, np.inf]), [1.0, None]),
    "numpy moment": (np.datetime64("2026-11-21T08:30:00"), "2026-11-21T08:30:00"),
    "NaN": (float("nan"), None),
    "nested": ({"a": [Decimal("1.0"), {"b": (b"a", float("-inf"))}]}, {"a": ["1.0", {"b": ["YQ==", None]}]}),
    "keys": ({dt.date(2026, 1, 2): 1, 3: 2}, {"2026-01-02": 1, "3": 2}),
    "large": (2**70, 2**70),
    "bool": (True, True),
    "other": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_value_has_its_rule_alone_and_beside_a_nan(name: str) -> None:
    """The quick way and the thorough way, which a NaN anywhere in the row asks for, write the same."""
    value, expected = CASES[name]
    assert json_value(value) == expected
    assert json.loads(to_json({"column": value}), parse_constant=pytest.fail) == {"column": expected}
    assert json.loads(to_json({"nan": float("nan"), "column": value}), parse_constant=pytest.fail) == {"nan": None, "column": expected}


class Always:
    takes_labels = False

    def describe(self) -> dict[str, str]:
        return {}

    def predict(self, texts: list[str], labels: object = None) -> list[Prediction]:
        return [Prediction("a", 1.0, {"a": 1.0}, True, 0)] * len(texts)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    table = pa.table(
        {
            "text": ["一"],
            "day": [dt.date(2026, 11, 21)],
            "price": pa.array([Decimal("12.50")], pa.decimal128(9, 2)),
            "raw": [b"\xff\x00"],
            "moment": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC")),
            "took": pa.array([1_500_000_001], pa.duration("ns")),
            "score": pa.array([float("nan")], pa.float32()),
            "pairs": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


EXPECTED = {
    "text": "一", "day": "2026-11-21", "price": "12.50", "raw": "/wA=", "moment": "2023-11-14T22:13:20.123456+00:00", "took": 1.5,
    "score": None, "pairs": [["k", 1]],
}  # fmt: skip


def test_parquet_to_json_lines(parquet: Path) -> None:
    predict_file(Always(), parquet, parquet.with_name("out.jsonl"))  # type: ignore[arg-type]
    (row,) = map(json.loads, parquet.with_name("out.jsonl").read_text(encoding="utf-8").splitlines())
    assert {name: row[name] for name in EXPECTED} == EXPECTED


def test_parquet_to_csv_says_the_same(parquet: Path) -> None:
    predict_file(Always(), parquet, parquet.with_name("out.csv"))  # type: ignore[arg-type]
    with parquet.with_name("out.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: row[name] for name in EXPECTED} == {**EXPECTED, "took": "1.5", "score": "", "pairs": '[["k", 1]]'}


def test_nanoseconds_are_read_with_or_without_pandas(parquet: Path) -> None:
    (example,) = read_examples(parquet, labelled=False)
    assert type(example.columns["moment"]) is dt.datetime
    assert type(example.columns["took"]) is dt.timedelta
