"""Values of a row as JSON, which has no word for most of what Parquet, numpy and Python hold.

| value | written as |
|---|---|
| date, time, date and time | ISO 8601: "2026-11-21T08:30:00+08:00" |
| length of time | seconds, a number |
| decimal | its digits as text: a float would round them |
| bytes | base64 |
| numpy number or array | number or list |
| NaN, infinity | null |
| anything else | its text |
"""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(row: Any) -> str:
    """`row` as one line of JSON."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)
    except (ValueError, TypeError):  # NaN; a key that is no text
        return json.dumps(json_value(row), ensure_ascii=False, allow_nan=False)


def json_value(value: Any) -> Any:
    """`value` in what JSON has: None, bool, int, float, str, list and dict with str keys."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(json_value(key)): json_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return json_value(_plain(value))


def _plain(value: Any) -> Any:
    """One step from what json.dumps does not take towards what it does."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    return str(value)
