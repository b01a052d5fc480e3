"""YAML that others wrote, to plain values."""

from __future__ import annotations

from typing import Any


def parsed_yaml(text: str, *, whole_numbers: bool = True) -> Any:
    """What a YAML text says; ValueError where it cannot be read. PyYAML lets errors of its own pass through: of a 30th of February, of
    a number that is none, of brackets a thousand deep.

    An alias stands for its value as often as it comes, so what is read may be endless where it is written out. `whole_numbers`: False
    leaves them the texts that they are written as: to YAML 0111 is octal, and 12:30 a number of base 60.
    """
    import yaml

    class AsWritten(yaml.SafeLoader):
        """Knows no whole numbers."""

    AsWritten.yaml_implicit_resolvers = {
        mark: [(tag, form) for tag, form in kinds if tag != "tag:yaml.org,2002:int"]
        for mark, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(text, yaml.SafeLoader if whole_numbers else AsWritten)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
