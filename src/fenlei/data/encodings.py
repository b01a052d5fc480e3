"""Bytes of a file to its lines of text: gzip or not, UTF-8 with or without BOM, else GB18030.

The encoding is decided on the first mebibyte, or where that is plain ASCII, line by line on all that came before; the rest is decoded
as it is read, so that a file of any size, a pipe and a terminal take the same way. Latin-1 is never tried: it reads any bytes at all and
would turn Chinese into noise unseen.
"""

from __future__ import annotations

import difflib
import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from fenlei.errors import ConfigError, DataError

STDIN = "-"
HEAD_BYTES = 1 << 20
LONGEST_LINE = 1 << 28
"""Bytes. A line beyond it is no row of a table; without a limit one file without line ends would fill the memory."""

_ASCII = bytes(range(128))
_UTF8_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_URL = re.compile(r"[A-Za-z][\w+.-]+:[/\\]")
"""A scheme has two letters or more: `C:` is a drive. A Path has taken one of the slashes."""
_OTHER_FILES = (
    (b"PK\x03\x04", "a zip or Excel file", "save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save the sheet as CSV (UTF-8)"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"PAR1", "Parquet", "name the file .parquet"),
    (b"%PDF", "a PDF", "export the rows as CSV or JSON lines"),
    (b"BZh", "a bzip2 file", "unpack it, or pack it with gzip"),
    (b"\xfd7zXZ", "an xz file", "unpack it, or pack it with gzip"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it, or pack it with gzip"),
)


class LineStream(Protocol):
    """Bytes, a line at a time; b"" at the end."""

    def readline(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Lines:
    """The lines of one file, line ends kept: those of the head, which formats may look at, then the rest. Iterates once.

    A line that cannot be decoded comes with noise in it: `refusal` says so to the one who makes a row of it.
    """

    source: str
    """The file, as the user named it."""
    encoding: str
    head: tuple[str, ...]
    rest: Iterator[str]
    broken: dict[int, DataError] = field(default_factory=dict)
    """What is wrong with lines that were read and could not be decoded, by number."""
    cut: bool = False
    """Whether the head ends at its bound, and not with the file."""

    def refusal(self, first: int, last: int | None = None) -> DataError | None:
        """Why lines from `first` to `last` (None: that one) make no row, told once; None where nothing is wrong with their bytes."""
        if not self.broken:
            return None
        return next((self.broken.pop(number) for number in range(first, (last or first) + 1) if number in self.broken), None)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Line numbers, from 1, with the lines."""
        yield from enumerate(self.head, start=1)
        yield from enumerate(self.rest, start=len(self.head) + 1)


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two names are of one file, through links too; False where either is not there."""
    return Path(one).exists() and Path(other).exists() and Path(one).samefile(other)


def is_like_url(path: str | Path) -> bool:
    """Whether it reads as a URL, also where a Path was made of it."""
    return _URL.match(str(path)) is not None


def read_once(path: str | Path) -> bool:
    """Whether its rows come but once: those of standard input, or of a pipe, which a shell makes of `<(zcat rows.gz)`."""
    return str(path) == STDIN or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def refuse_read_once(option: str, path: str | Path, who: str) -> None:
    """ConfigError where rows come but once: `who` reads them again."""
    if read_once(path):
        found = f"{option}: {who} needs a file or a folder, found {str(path)!r}"
        raise ConfigError(f"{found}; rows from stdin or a pipe cannot be read twice, so save them")


@contextmanager
def open_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file, gzip recognised by its first bytes; `-` is stdin. DataError where there is no file."""
    if str(path) == STDIN:
        yield sys.stdin.buffer
        return
    with _open(path) as stream:
        if stream.peek(2)[:2] == _GZIP:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield io.BufferedReader(unpacked)  # GzipFile.readline alone is several times slower
        else:
            yield stream


def is_for_excel(path: str | Path) -> bool:
    """Whether a file is a CSV as Excel reads it, UTF-8 behind a byte order mark or GB18030: other UTF-8 it may take for a code page.

    DataError where it is no text.
    """
    if Path(path).suffix.lower() != ".csv" or not Path(path).is_file():
        return False
    with open_bytes(path) as stream:
        if stream.read(len(_UTF8_BOM)) == _UTF8_BOM:
            return True
    with open_bytes(path) as stream:
        return read_lines(stream, source_name(path)).encoding == "gb18030"


def source_name(path: str | Path) -> str:
    """How messages call the file."""
    return "stdin" if str(path) == STDIN else str(path)


def read_lines(stream: LineStream, source: str, head_bytes: int = HEAD_BYTES) -> Lines:
    """The decoded lines of a stream; DataError where it is neither UTF-8 nor GB18030, or no text at all."""
    raw_lines = _raw_lines(stream, source)
    head: list[bytes] = []
    size = 0
    while size < head_bytes and (line := next(raw_lines, None)) is not None:
        head.append(line)
        size += len(line)
    encoding, broken = _decide(head, source)
    decoded = tuple(line.decode(encoding, "replace") for line in head)
    # A head of plain ASCII leaves the question open.
    ascii_so_far = all(line.isascii() for line in decoded)
    rest = _decode_rest(raw_lines, source, None if ascii_so_far else encoding, len(head) + 1, broken)
    return Lines(source, encoding, decoded, rest, broken, cut=size >= head_bytes)


def _open(path: str | Path) -> io.BufferedReader:
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{path}: expected a file, found a folder; name the file inside it")
    try:
        return file.open("rb")
    except FileNotFoundError:
        if is_like_url(path):
            raise DataError(f"{path}: is a URL, which `fenlei predict --engine ray` alone reads; fetch the file first") from None
        raise DataError(f"{path}: no such file{_nearest_sibling(file)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise DataError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _nearest_sibling(file: Path) -> str:
    if not file.parent.is_dir():
        return f" (and no folder {str(file.parent)!r})"
    near = difflib.get_close_matches(file.name, [other.name for other in file.parent.iterdir()], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _raw_lines(stream: LineStream, source: str) -> Iterator[bytes]:
    """Lines of bytes; 0x0A is a line end in UTF-8 and never part of a GB18030 character, so lines can be cut before decoding."""
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(LONGEST_LINE + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{source}:{number}: the file breaks off or is damaged ({error}); copy or pack it again") from error
        if not line:
            return
        if number == 1:
            _refuse_other_files(line, source)
            line = line.removeprefix(_UTF8_BOM)
        if b"\0" in line:
            raise DataError(f"{source}:{number}: expected text, found binary data (a zero byte); give a text file or Parquet")
        if len(line) > LONGEST_LINE:
            raise DataError(f"{source}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; expected one row a line (JSON lines, CSV)")
        yield line


def _refuse_other_files(start: bytes, source: str) -> None:
    for magic, what, cure in _OTHER_FILES:
        if start.startswith(magic):
            raise DataError(f"{source}: expected text or Parquet, found {what}; {cure}")


def _decode_rest(raw_lines: Iterator[bytes], source: str, encoding: str | None, first: int, broken: dict[int, DataError]) -> Iterator[str]:
    """The lines from number `first` on; `encoding` None: each in the one that most of the bytes beyond ASCII so far are in."""
    votes = {"utf-8": 0, "gb18030": 0}
    for number, line in enumerate(raw_lines, start=first):
        chosen = encoding or ("utf-8" if line.isascii() else _voted(line, votes))
        try:
            yield line.decode(chosen)
        except UnicodeDecodeError as error:
            broken[number] = _undecodable(source, number, error, f"not {chosen.upper()} as the lines before")
            yield line.decode(chosen, "replace")


def _voted(line: bytes, votes: dict[str, int]) -> str:
    """The encoding with the most votes, when this line has given its own; UTF-8 where they are even.

    A line votes with its bytes beyond ASCII, as one alone may be broken, or too short to tell: Latin-1's `naïve` is GB18030 as well, and
    GB18030's `一` is UTF-8.
    """
    fitting = next((encoding for encoding in votes if _decode_error(line, encoding) is None), None)
    if fitting is not None:
        votes[fitting] += len(line.translate(None, _ASCII))
    return max(votes, key=votes.__getitem__)


def _decide(lines: Sequence[bytes], source: str) -> tuple[str, dict[int, DataError]]:
    """utf-8 or gb18030, and the lines that are not in it; DataError where most are in neither.

    UTF-8 Chinese with one broken byte often decodes as GB18030, to other characters. So GB18030 is taken only where most lines
    beyond ASCII are no UTF-8, as in a real GB18030 file.
    """
    beyond_ascii = [(number, line) for number, line in enumerate(lines, start=1) if not line.isascii()]

    def failures(encoding: str, what: str) -> dict[int, DataError]:
        tried = ((number, _decode_error(line, encoding)) for number, line in beyond_ascii)
        return {number: _undecodable(source, number, error, what) for number, error in tried if error is not None}

    not_utf8 = failures("utf-8", "not UTF-8 as the other lines")
    if 2 * len(not_utf8) <= len(beyond_ascii):
        return "utf-8", not_utf8
    neither = failures("gb18030", "neither UTF-8 nor GB18030")
    if 2 * len(neither) > len(beyond_ascii):
        raise next(iter(neither.values()))
    return "gb18030", neither


def _decode_error(line: bytes, encoding: str) -> UnicodeDecodeError | None:
    try:
        line.decode(encoding)
    except UnicodeDecodeError as error:
        return error
    return None


def _undecodable(source: str, number: int, error: UnicodeDecodeError, what: str) -> DataError:
    found = f"byte 0x{error.object[error.start]:02x} at place {error.start + 1} of the line"
    return DataError(f"{source}:{number}: {what} ({found}); mend the line or save the file as UTF-8")
