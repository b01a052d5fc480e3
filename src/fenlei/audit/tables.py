"""An audit for the terminal: what was found, the first rows of each kind, and what to do next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fenlei.audit.audit import Audit
from fenlei.audit.copies import Copy
from fenlei.audit.fix import REMOVED, plan_fixes
from fenlei.audit.profile import IMBALANCE, Oddity
from fenlei.audit.rows import PARTS
from fenlei.data.examples import Example

SHOWN = 5
"""Rows of each kind; --json has all of them."""
EXCERPT = 48
"""Characters of a text that are shown."""
BAR = 24


def audit_tables(audit: Audit) -> Group:
    """Print it on a rich console."""
    parts: list[RenderableType] = [_summary(audit), _classes(audit)]
    for title, table in _found(audit):
        table.title, table.title_justify = title, "left"
        parts.append(table)
    return Group(*(line for part in parts for line in (part, Text())))


def next_steps(audit: Audit, data: str, fixed: bool, options: Sequence[str] = (), run: Path | None = None) -> Iterator[str]:
    """What to do about it, a line each; one line where all is well.

    `options`, those of reading the data, and `run` as they were given: without them other rows or columns would be read the next time.
    """
    surely = any(one.action == REMOVED for one in plan_fixes(audit))
    if surely and not fixed:
        again = shlex.join(["fenlei", "audit", data, *options, *([] if run is None else ["--run", str(run)])])
        yield f"{again} --fix cleaned.jsonl    writes train without copies, leaks and blanks, and a log of every row touched"
    if audit.label_errors.estimated:
        yield (
            f"read the first {audit.label_errors.estimated:,} suspected labels (--json, `label_errors`; the log of --fix): "
            "no label is changed for you"
        )
    if audit.classes.look_alikes:
        yield "if two names are one class, write them alike in the data"
    if audit.classes.imbalance >= IMBALANCE:
        yield "add rows to the small classes, and read macro F1 rather than accuracy"
    if not surely and not audit.label_errors.estimated and not audit.classes.look_alikes:
        yield f"nothing stands in the way: {shlex.join(['fenlei', 'train', data, *options])} --model nano --out runs/first"


def _summary(audit: Audit) -> Table:
    table = Table(title=_title(audit), title_justify="left")
    table.add_column("Looked for")
    table.add_column("Rows", justify="right")
    table.add_column("Share", justify="right")
    table.add_column("What it does", overflow="fold")
    empty, long = _split_lengths(audit.lengths.rows)
    conflict_rows = sum(len(conflict.rows) for conflict in audit.conflicts)
    for name, count, harm in (
        ("Duplicates", len(audit.duplicates), "one text counts for several"),
        ("Near duplicates", len(audit.near_duplicates), "the same, with a character changed; after a split they leak"),
        ("Leaks between parts", len(audit.leaks), "dev and test measure what was learned by heart"),
        ("One text, two labels", conflict_rows, "no model can be right on both"),
        ("Label probably wrong", audit.label_errors.estimated, f"an estimate: {audit.label_errors.judge or 'not judged'}"),
        ("No text", len(empty), "`train` refuses the file"),
        ("Longer than is read", len(long), "the end is cut, unless --max-length is raised"),
        ("Class in question", len({one.row for one in audit.classes.rows}), "no label, alone in its class, a name like another"),
        ("Another script", len(audit.languages.rows), "fewer than one row in a hundred: meant to be here?"),
    ):
        share = f"{100 * count / max(1, len(audit.rows)):.2f} %" if count else ""
        table.add_row(name, Text(f"{count:,}", style="bold yellow") if count else Text("0", style="green"), share, Text(harm))
    return table


def _title(audit: Audit) -> str:
    counts = Counter(audit.rows.part_of)
    parts = ", ".join(f"{PARTS[part]} {counts[part]:,}" for part in sorted(counts))
    lengths = f"{audit.lengths.median:,} characters in the middle, 95 % up to {audit.lengths.p95:,}, longest {audit.lengths.longest:,}"
    scripts = ", ".join(f"{name} {100 * count / len(audit.rows):.1f} %" for name, count in list(audit.languages.counts.items())[:4])
    return f"{len(audit.rows):,} rows ({parts})\n{lengths}\n{scripts}"


def _classes(audit: Audit) -> Table:
    counts = audit.classes.counts
    table = Table(title=f"{len(counts):,} classes, the largest {audit.classes.imbalance:,.1f} times the smallest", title_justify="left")
    table.add_column("Class", overflow="fold")
    table.add_column("Rows of train", justify="right")
    table.add_column("")
    names = list(counts)
    shown = names if len(names) <= 3 * SHOWN else [*names[:SHOWN], *names[-SHOWN:]]
    slips = dict(audit.classes.look_alikes)
    for place, name in enumerate(shown):
        if len(shown) < len(names) and place == SHOWN:
            table.add_row(f"... {len(names) - len(shown):,} more", "", "")
        bar = "█" * max(1, round(BAR * counts[name] / counts[names[0]]))
        remark = f"  looks like {slips[name]!r}" if name in slips else ""
        table.add_row(Text(name), f"{counts[name]:,}", Text(bar, style="cyan") + Text(remark, style="yellow"))
    return table


def _found(audit: Audit) -> Iterator[tuple[str, Table]]:
    """A title and the first rows of each kind that there is."""
    kinds = (("Duplicates", audit.duplicates), ("Near duplicates", audit.near_duplicates), ("Leaks", audit.leaks))
    for title, copies in kinds:
        if copies:
            yield _counted(title, copies), _copies(audit, copies[:SHOWN])
    if audit.conflicts:
        table = _table("Row", "Text", "Labels")
        for conflict in audit.conflicts[:SHOWN]:
            labels = ", ".join(f"{label} {count}" for label, count in conflict.labels.items())
            _add(audit, table, conflict.rows[0], labels)
        yield _counted("One text, two labels", audit.conflicts), table
    if audit.label_errors.rows:
        table = _table("Row", "Text", "Label", "Rather")
        for suspect in audit.label_errors.rows[:SHOWN]:
            _add(audit, table, suspect.row, suspect.label, f"{suspect.suggested} {100 * suspect.probability:.0f} %")
        yield f"Labels to doubt first (about {audit.label_errors.estimated:,} wrong)", table
    odd = {"Texts": audit.lengths.rows, "Classes": audit.classes.rows, "Scripts": audit.languages.rows}
    for title, oddities in odd.items():
        if oddities:
            table = _table("Row", "Text", "Problem")
            for oddity in oddities[:SHOWN]:
                _add(audit, table, oddity.row, oddity.problem)
            yield _counted(title, oddities), table


def _copies(audit: Audit, copies: Sequence[Copy]) -> Table:
    table = _table("Row", "Text", "Like", "Label")
    for copy in copies:
        labels = dict.fromkeys(str(audit.rows.examples[row].label) for row in (copy.row, copy.of))
        other = audit.rows.examples[copy.of]
        like = _where(other) if copy.exact else f"{_where(other)}: {_excerpt(other.whole)}"
        _add(audit, table, copy.row, like, " / ".join(labels))
    return table


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _add(audit: Audit, table: Table, row: int, *cells: str) -> None:
    example = audit.rows.examples[row]
    table.add_row(*(Text(cell) for cell in (_where(example), _excerpt(example.whole), *cells)))  # as Text: [red] in a text is no markup


def _where(example: Example) -> str:
    return f"{Path(example.source).name}:{example.line}"


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _counted(title: str, found: Sequence[object]) -> str:
    return f"{title}: the first {SHOWN} of {len(found):,}" if len(found) > SHOWN else title


def _split_lengths(oddities: Sequence[Oddity]) -> tuple[list[Oddity], list[Oddity]]:
    return [one for one in oddities if one.problem == "empty"], [one for one in oddities if one.problem != "empty"]
