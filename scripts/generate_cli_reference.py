"""Writes docs/cli.md, made from the commands themselves; tests/test_cli_reference.py says when it is out of date."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from typer.models import ArgumentInfo

from fenlei.cli.main import app

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"

HEAD = """\
# The command line

<!-- Made by scripts/generate_cli_reference.py from the commands themselves: do not edit. -->

`fenlei COMMAND --help` says the same in the terminal, and `python -m fenlei` is the same as `fenlei`.

- Data goes to standard output, progress and notes to standard error. `-` as a file is standard input or output.
- `--json` prints as JSON what is otherwise a table for people.
- Exit codes: 0 done; 1 an error, printed without a traceback; 2 wrong usage; 3 from `fenlei serve`: the run could not be loaded;
  130 interrupted.
- The options of `fenlei train` are also the keys of the file given with `--config` (`--batch-size 8` is `batch_size: 8`);
  what the command line says wins.
"""


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *(_section(command.callback, command.epilog) for command in app.registered_commands)])


def _section(command: Any, epilog: str) -> str:
    parameters = list(_parameters(command))
    usage = " ".join(one.metavar if one.required else f"[{one.metavar}]" for one in parameters if one.group == "Arguments")
    examples = [line.strip() for line in epilog.splitlines()[2:]]
    lines = [f"## fenlei {command.__name__}", "", inspect.cleandoc(command.__doc__), ""]
    lines += ["```sh", f"fenlei {command.__name__} {usage} [OPTIONS]".replace("  ", " "), "", "# for example", *examples, "```", ""]
    for group in dict.fromkeys(one.group for one in parameters):
        lines += [f"| {group} | |", "|---|---|", *(one.row for one in parameters if one.group == group), ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Parameter:
    group: str
    names: tuple[str, ...]
    metavar: str
    kind: str
    """What it takes; empty for a switch."""
    default: object
    required: bool
    help: str

    @property
    def row(self) -> str:
        shown = " / ".join(f"`{name}`" for name in self.names) + (f" {self.kind}" if self.kind else "")
        told = self.help + (" Required." if self.required else "")
        told += f" (default: {self.default})" if self.default else ""
        return f"| {shown} | {told} |"


def _parameters(command: Any) -> Iterator[_Parameter]:
    """The parameters of a command's function; its annotations say all that typer knows."""
    for name, one in inspect.signature(command, eval_str=True).parameters.items():
        kind, info = get_args(one.annotation)
        # In an annotation, typer keeps the first name of an option where its default would be.
        declared = [flag for given in (info.default, *(info.param_decls or ())) if isinstance(given, str) for flag in given.split("/")]
        argument = isinstance(info, ArgumentInfo)
        yield _Parameter(
            group="Arguments" if argument else info.rich_help_panel or "Options",
            names=(info.metavar,) if argument else tuple(declared or ["--" + name.replace("_", "-")]),
            metavar=info.metavar or "",
            kind="" if argument else info.metavar or _kind(kind),
            default=None if info.show_default is False or one.default is one.empty else one.default,
            required=one.default is one.empty,
            help=info.help or "",
        )


def _kind(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return _kind(next(one for one in get_args(kind) if one is not type(None)))
    if get_origin(kind) is Literal:
        return ", ".join(f"*{choice}*" for choice in get_args(kind))
    if get_origin(kind) is list:
        return _kind(get_args(kind)[0])
    return {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}[kind]


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
