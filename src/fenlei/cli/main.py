"""The `fenlei` command: its sub-commands, and errors turned into exit codes.

0 done, 1 a FenleiError (printed, no traceback), 2 wrong usage, 130 interrupted. Nothing heavy is imported here, nor by the modules of
the commands: each imports what it needs when it runs, so that `fenlei --help` answers at once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand
from typer.main import get_command

from fenlei import __version__
from fenlei.cli import audit, demo, distill, download, evaluate, export, extend, labels, predict, serve, suggest, train, tune
from fenlei.cli.older import told
from fenlei.errors import FenleiError

INTERRUPTED = 130


class _Grouped(TyperCommand):
    """A command whose help groups its options, in plain text: rich cuts long names off at 80 columns, and is slow to import."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if one.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(one, "rich_help_panel", None) or usual, []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


app = typer.Typer(
    name="fenlei",
    help="Turn a labelled file and a language model into a text classifier.\n\n`fenlei demo` shows everything once, without a network.",
    epilog="Data goes to standard output, progress and notes to standard error; `-` as a file is standard input or output.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command, _examples in (
    (demo.demo, demo.EXAMPLES),
    (audit.audit, audit.EXAMPLES),
    (train.train, train.EXAMPLES),
    (tune.tune, tune.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (predict.predict, predict.EXAMPLES),
    (serve.serve, serve.EXAMPLES),
    (suggest.suggest, suggest.EXAMPLES),
    (extend.extend, extend.EXAMPLES),
    (labels.labels, labels.EXAMPLES),
    (distill.distill, distill.EXAMPLES),
    (export.export, export.EXAMPLES),
    (download.download, download.EXAMPLES),
):
    # After \b, lines are left as they are.
    app.command(cls=_Grouped, epilog="\n".join(["\b", "Examples:", *(f"  {example}" for example in _examples)]))(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fenlei {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """Takes the options that come before a command; the text of the help is that of `app`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (else that of the process) and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Labels and texts are Chinese as often as not; a console of another encoding must not end the run.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        get_command(app).main(args=told(sys.argv[1:] if argv is None else argv), prog_name="fenlei")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except FenleiError as error:
        typer.echo(typer.style("Error: ", fg=typer.colors.RED, bold=True) + str(error), err=True)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def run() -> NoReturn:
    """Ends the process with the exit code of its command line."""
    sys.exit(main())
