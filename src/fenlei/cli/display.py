"""What a person sees while waiting, on standard error: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from fenlei.training.progress import Progress

LOG_EVERY_SECONDS = 30.0
BAR_WIDTH = 30
SHOWN_LABELS = 10


def notes() -> Console:
    """Standard error, for what is not data."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)  # a label or a place as news.jsonl:100: is no emoji


def tables() -> Console:
    """Standard output, for tables that people read."""
    return Console(highlight=False, emoji=False)


def typed(*words: object) -> str:
    """The words as a shell takes them: a path with a blank stands in quotes."""
    return shlex.join(map(str, words))


def asking(run: Path) -> str:
    """The command that asks a finished run for the label of a text, or of a pair."""
    from fenlei.artifact import read_manifest
    from fenlei.text.pairs import PAIR_COLUMN

    return f"{typed('fenlei', 'predict', run)} --text ..." + (" --pair ..." if read_manifest(run).get(PAIR_COLUMN) else "")


class TrainingDisplay:
    """Shows a training: call it with each Progress. Used as a context, it leaves the terminal as it was."""

    def __init__(self) -> None:
        self._console = notes()
        self._bars: Bars | None = None
        self._logged = -LOG_EVERY_SECONDS

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()

    def announce(self, note: str) -> None:
        from fenlei.audit.warnings import WARNING  # here: other commands show nothing of it, and need not load it

        self._console.print(note, style="yellow" if note.startswith(WARNING) else "dim", markup=False)

    def __call__(self, now: Progress) -> None:
        if self._console.is_terminal:
            self._draw(now)
        if now.metrics is not None:
            self._console.print(f"epoch {now.epoch:.2f}  {_figures(now.metrics)}", markup=False)
        elif not self._console.is_terminal and time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            self._console.print(f"step {now.step}/{now.steps}  {_pace(now)}", markup=False)

    def _draw(self, now: Progress) -> None:
        if self._bars is None:
            columns = (TextColumn("training"), BarColumn(BAR_WIDTH), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._bars.add_task("", total=now.steps, pace="")
            self._bars.start()
        self._bars.update(self._bars.task_ids[0], completed=now.step, pace=_pace(now))


@contextmanager
def counting_rows(what: str, source: str, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """A function that is told the number of rows of `source` done; shown with the rate and, where they can be counted, the time left. In a
    log, a line now and then.

    `hidden` says that rows go to standard output; where that is the terminal too, a bar would run through them.
    """
    console = notes()
    if not console.is_terminal:
        yield _logging_rows(what, console)
        return
    shown = not (hidden and sys.stdout.isatty())
    columns: list[ProgressColumn] = [TextColumn(what), BarColumn(BAR_WIDTH), TextColumn("{task.completed:,} rows"), _RowsPerSecond()]
    total = _lines(source) if shown else None
    if total is not None:
        columns += [TimeRemainingColumn(compact=True), TextColumn("left")]
    with Bars(*columns, console=console, transient=True, disable=not shown) as bars:
        task = bars.add_task("", total=total)
        yield lambda done: bars.update(task, completed=done)


def probability_bars(probabilities: Mapping[str, float]) -> Table:
    """The likeliest labels, each with a bar."""
    table = Table.grid(padding=(0, 2))
    for label, probability in sorted(probabilities.items(), key=lambda item: -item[1])[:SHOWN_LABELS]:
        table.add_row(Text(label), Text("█" * round(probability * BAR_WIDTH)), Text(f"{100 * probability:5.1f} %"))
    return table


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


class _RowsPerSecond(ProgressColumn):
    def render(self, task: Any) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "")


def _logging_rows(what: str, console: Console) -> Callable[[int], None]:
    """Prints the number of rows done, and their rate since the line before, once in a while."""
    last: tuple[float, int] | None = None

    def log(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        last = last or (now, done)  # what an earlier call has done is no part of the rate
        seconds, rows = now - last[0], done - last[1]
        if seconds >= LOG_EVERY_SECONDS:
            console.print(f"{what}: {done:,} rows, {rows / seconds:,.0f} rows/s", markup=False)
            last = (now, done)

    return log


def _lines(source: str) -> int | None:
    """Lines of a plain text file, near enough the number of its rows; None where there is no telling in advance."""
    path = Path(source)
    if path.suffix not in (".jsonl", ".ndjson", ".csv", ".tsv", ".txt") or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) or None


def _pace(now: Progress) -> str:
    loss = "" if now.loss is None else f"loss {now.loss:.4f}  "
    left = "" if now.seconds_left is None else f"  {_clock(now.seconds_left)} left"
    return f"{loss}{now.rows_per_second:,.1f} rows/s{left}"


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
