"""YAML that others wrote, to plain values."""

from __future__ import annotations

from typing import Any


def parsed_yaml(text: str) -> Any:
    """What a YAML text says; ValueError where it cannot be read. PyYAML lets errors of its own pass through: of a 30th of February, of
    a number that is none, of brackets a thousand deep.

    An alias stands for its value as often as it comes, so what is read may be endless where it is written out.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
