"""CSV, TSV and `text<TAB>label` lines to rows, with a header line or without.

CSV is read strictly: a quote out of place is an error, not a guess, since a guess swallows the rows up to the next quote. TSV of
Chinese and GLUE data sets knows no quoting, TSV of pandas and Excel does; the head of the file shows which it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, zip_longest
from typing import Any

from fenlei.data.columns import is_known_name
from fenlei.data.encodings import Lines
from fenlei.errors import DataError

Row = tuple[int, dict[str, Any] | DataError]
"""A line number with its columns, or with what is wrong with the row; the rows after it can be read all the same."""
Record = tuple[int, list[str] | DataError]

SAMPLE = 1000
"""Records looked at to tell a label from a text where no header does."""

LONGEST_FIELD = 1 << 24
LONGEST_LABEL = 32
FEW_ROWS = 50
"""Up to so many rows nothing is concluded from labels that do not come again."""

_INVENTED = re.compile(r"text|label|column_\d+")
_CSV_CURE = 'put a field that holds a comma, a quote or a line break in quotes, and double the quotes inside ("")'
_TSV_CURE = "a text may hold no tab and no line break here; save such texts as CSV or JSON lines"


def read_csv(lines: Lines, named: Sequence[str], usual: Sequence[str]) -> Iterator[Row]:
    """Rows of a CSV file; the delimiter is a comma unless the first line has none, but tabs or semicolons."""
    first = lines.head[0] if lines.head else ""
    delimiter = next((mark for mark in ",\t;" if mark in first), ",")
    return _rows(_quoted_records(lines, lines.source, delimiter, lines.refusal), lines.source, named, usual, _CSV_CURE)


def read_tsv(lines: Lines, named: Sequence[str], usual: Sequence[str]) -> Iterator[Row]:
    """Rows of a TSV file, quoted or not."""
    records = _quoted_records(lines, lines.source, "\t", lines.refusal) if _is_quoted_tsv(lines) else _plain_records(lines)
    return _rows(records, lines.source, named, usual, _TSV_CURE)


def read_tabbed(lines: Lines, named: Sequence[str], usual: Sequence[str]) -> Iterator[Row]:
    """Rows of a .txt file of `text<TAB>label` or `label<TAB>text` lines; a tab more belongs to the text."""
    head = [line.rstrip("\r\n").split("\t") for line in islice(_filled(lines.head), SAMPLE)]
    widths = {len(cells) for cells in head}
    if _has_header(head, named, usual) or (len(widths) == 1 and min(widths) > 2):
        return read_tsv(lines, named, usual)
    return _tabbed_rows(lines)


def looks_tabbed(lines: Lines, labelled: bool) -> bool:
    """Whether a .txt file has tabs between text and label.

    Where labels are asked for, a tab in the first line is enough. Else every line of the head has to have one, with something like
    a label beside it: texts, one a line, may hold tabs too.
    """
    head = [line.rstrip("\r\n") for line in islice(_filled(lines.head), SAMPLE)]
    if labelled:
        return bool(head) and "\t" in head[0]
    if not head or not all("\t" in line for line in head):
        return False
    if _has_header([line.split("\t") for line in head], (), ()):
        return True
    pairs = [_cut_in_two(line, label_first=False) for line in head]
    labels = [pair[label_place(pairs)] for pair in pairs]
    come_again = len(labels) <= FEW_ROWS or 2 * len(set(labels)) <= len(labels)
    return come_again and max(map(len, labels)) <= LONGEST_LABEL


def label_place(pairs: Sequence[Sequence[str]]) -> int:
    """Which of two columns without names is the label: that of fewer distinct values, then the shorter one, then the second."""
    first, second = ({pair[place] for pair in pairs} for place in (0, 1))
    if len(first) != len(second):
        return 0 if len(first) < len(second) else 1
    lengths = [sum(len(pair[place]) for pair in pairs) for place in (0, 1)]
    return 0 if lengths[0] < lengths[1] else 1


def _tabbed_rows(lines: Lines) -> Iterator[Row]:
    sample = [_cut_in_two(line.rstrip("\r\n"), label_first=False) for line in islice(_filled(lines.head), SAMPLE) if "\t" in line]
    label_first = label_place(sample) == 0
    names = ("label", "text") if label_first else ("text", "label")
    for number, line in lines:
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        if (refusal := lines.refusal(number)) is not None:
            yield number, refusal
        elif "\t" not in line:
            yield number, DataError(f"{lines.source}:{number}: expected {names[0]}<TAB>{names[1]}, found no tab in {line[:60]!r}")
        else:
            yield number, dict(zip(names, _cut_in_two(line, label_first), strict=True))


def _cut_in_two(line: str, label_first: bool) -> list[str]:
    return line.split("\t", 1) if label_first else line.rsplit("\t", 1)


def _rows(records: Iterator[Record], source: str, named: Sequence[str], usual: Sequence[str], cure: str) -> Iterator[Row]:
    """Records with their columns' names: those of the first record if it is a header, else `text` and `label` or `column_N`."""
    sample = list(islice(records, SAMPLE))
    if not sample:
        return
    line, first = sample[0]
    if isinstance(first, DataError):
        raise first  # it may be the header, without which no row has a meaning
    fields_only = [fields for _, fields in sample if not isinstance(fields, DataError)]
    has_header = _has_header(fields_only, named, usual)
    names = _header(line, first, source) if has_header else _invented_names(fields_only)
    for line, fields in chain(sample[1:] if has_header else sample, records):
        if isinstance(fields, DataError):
            yield line, fields
        elif len(fields) != len(names):
            yield line, DataError(f"{source}:{line}: expected {len(names)} fields ({', '.join(names)}), found {len(fields)}; {cure}")
        else:
            yield line, dict(zip(names, fields, strict=True))


def _has_header(sample: Sequence[Sequence[str]], named: Sequence[str], usual: Sequence[str]) -> bool:
    """Whether the first line names the columns.

    It does where it has a well-known name that does not come again below it (a class may be called `review`), or one of `usual`, the
    columns that a run learned its texts from; and where the user names columns, unless those are the names that a file without header
    gets here.
    """
    if not sample:
        return False
    if any(cell.strip() in named for cell in sample[0]) or not all(_INVENTED.fullmatch(name) for name in named):
        return True
    below = [set(column) for column in zip_longest(*sample[1:])]
    return any(
        (is_known_name(cell) or cell.strip() in usual) and (place >= len(below) or cell not in below[place])
        for place, cell in enumerate(sample[0])
    )


def _header(line: int, fields: Sequence[str], source: str) -> list[str]:
    names = [name.strip() for name in fields]
    if names.count("") > 1:  # as Excel writes columns that held something once; one alone, the index of pandas, stays as it is
        names = [name or f"column_{place}" for place, name in enumerate(names, start=1)]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise DataError(f"{source}:{line}: the header has the column {twice!r} twice; give every column a name of its own")
    return names


def _invented_names(sample: Sequence[Sequence[str]]) -> list[str]:
    width = len(sample[0])
    if width == 1:
        return ["text"]
    if width == 2:
        return ["label", "text"] if label_place([fields for fields in sample if len(fields) == 2]) == 0 else ["text", "label"]
    return [f"column_{place}" for place in range(1, width + 1)]


def _quoted_records(
    lines: Iterable[tuple[int, str]], source: str, delimiter: str, refusal: Callable[[int, int], DataError | None] | None = None
) -> Iterator[Record]:
    """Records with the line they start on; blank lines are left out.

    A quote out of place ends the reading: it may have swallowed rows, and where the next one begins would be a guess.
    """
    if csv.field_size_limit() < LONGEST_FIELD:
        csv.field_size_limit(LONGEST_FIELD)  # process-wide, there is no other; the default of 131,072 is less than a long document
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{source}:{start}: broken CSV: {error}; {_CSV_CURE}") from error
        if fields and any(field.strip() for field in fields):
            yield start, (refusal(start, reader.line_num) if refusal else None) or fields


def _plain_records(lines: Lines) -> Iterator[Record]:
    for number, line in lines:
        if line.strip():
            yield number, lines.refusal(number) or [_unquoted(field) for field in line.rstrip("\r\n").split("\t")]


def _unquoted(field: str) -> str:
    """A field in quotes with every inner quote doubled loses them; any other quote is part of the text."""
    if len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in field[1:-1].replace('""', ""):
        return field[1:-1].replace('""', '"')
    return field


def _is_quoted_tsv(lines: Lines) -> bool:
    """Whether only reading with quotes gives records of one width, as with line breaks inside quoted texts."""
    head = _closed(lines.head) if lines.cut else lines.head
    if len({line.count("\t") for line in _filled(head)}) <= 1:
        return False
    try:
        records = list(_quoted_records(enumerate(head, start=1), lines.source, "\t"))
    except DataError:
        return False
    return len({len(fields) for _, fields in records if not isinstance(fields, DataError)}) == 1


def _closed(head: Sequence[str]) -> Sequence[str]:
    """The lines up to the last one below which no quote is open: a head that is cut may end inside a quoted text."""
    quotes = accumulate(line.count('"') for line in head)
    return head[: max((number for number, so_far in enumerate(quotes, start=1) if so_far % 2 == 0), default=0)]


def _filled(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())
