"""What values an option takes, by its annotation."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, get_origin


def kinds(kind: Any) -> tuple[Any, ...]:
    """The alternatives of an optional or literal annotation."""
    return (kind,) if get_origin(kind) is Literal or not get_args(kind) else get_args(kind)


def as_plain(value: Any) -> Any:
    """A scalar of NumPy, as searches over options give them, as Python's own: YAML writes no other."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 else value


def as_float(value: Any) -> Any:
    """A number as float. YAML 1.1 reads 3e-4, without a dot, as a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an option's kind."""
    for one in kinds(kind):
        if get_origin(one) is Literal:
            if isinstance(value, str) and value in get_args(one):
                return True
        elif one is float:
            if isinstance(value, float) and math.isfinite(value):
                return True
        elif one is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif isinstance(value, one):
            return True
    return False


def describe(kind: Any) -> str:
    """An option's kind, in words."""
    words = []
    for one in kinds(kind):
        if get_origin(one) is Literal:
            words.append("one of " + ", ".join(get_args(one)))
        else:
            words.append({int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}[one])
    return " or ".join(words)
