"""A JSON array to its elements, one at a time, without holding the whole file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from fenlei.data.encodings import LONGEST_LINE, Lines
from fenlei.errors import DataError

CHUNK = 1 << 16
"""Characters read at a time."""

_BLANKS = " \t\r\n"


def read_json_array(lines: Lines) -> Iterator[tuple[int, Any, str]]:
    """For each element its number from 1, its value and its JSON text; DataError names the line where the array breaks.

    Elements are counted, for an array is often one line from end to end.
    """
    text = _Text(lines)
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
    else:
        yield 1, *text.value()
        for number in itertools.count(2):
            if text.peek() == "]":
                break
            text.expect(",", or_else="]")
            yield number, *text.value()
        text.expect("]")
    if text.peek():
        raise text.error(f"the array ends, but {text.peek()!r} follows")


def _readable(lines: Lines) -> Iterator[str]:
    """The lines; DataError at one that cannot be decoded, for where it stands in the array is not known."""
    for number, line in lines:
        if (refusal := lines.refusal(number)) is not None:
            raise refusal
        yield line


class _Text:
    """A window on the file that slides forward; it is cut at line ends only, so no word of JSON is ever halved."""

    def __init__(self, lines: Lines) -> None:
        self._source = lines.source
        self._lines = _readable(lines)
        self._buffer = ""
        self._place = 0
        self._line, self._counted = 1, 0  # the line number at the place up to which line ends have been counted
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no blank, "" at the end; it stays the next."""
        while True:
            while self._place < len(self._buffer) and self._buffer[self._place] in _BLANKS:
                self._place += 1
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._extend():
                return ""

    def expect(self, mark: str, or_else: str = "") -> None:
        found = self.peek()
        if found != mark:
            wanted = f"{mark!r} or {or_else!r}" if or_else else repr(mark)
            raise self.error(f"expected {wanted}, found {found!r}" if found else f"expected {wanted}, found the end of the file")
        self._place += 1

    def value(self) -> tuple[Any, str]:
        """The value and JSON text of the next element."""
        self.peek()
        while True:
            try:
                element, end = self._decoder.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                # Broken where text is still to come: only cut off, if anything follows. Broken before that: broken.
                if self._buffer[error.pos :].strip(_BLANKS) or not self._extend():
                    raise self.error(error.msg, at=error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.error(str(error)) from None
            else:
                written = self._buffer[self._place : end]
                self._place = end
                return element, written

    def error(self, what: str, at: int | None = None) -> DataError:
        line = self._count_lines()
        if at is not None:
            line += self._buffer.count("\n", self._place, at)
        return DataError(f'{self._source}:{line}: broken JSON: {what}; expected an array of objects, [{{"text": ...}}, ...]')

    def _count_lines(self) -> int:
        """The line number at the place reached."""
        self._line += self._buffer.count("\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def _extend(self) -> bool:
        """Read on, at least as much as is still unread, so that a long element costs no quadratic time; False at the end."""
        unread = len(self._buffer) - self._place
        if unread > LONGEST_LINE:  # as of a line: one element must not fill the memory
            raise self.error(f"an element of more than {LONGEST_LINE >> 20} MiB")
        wanted = max(CHUNK, unread)
        pieces: list[str] = []
        while wanted > 0 and (line := next(self._lines, None)) is not None:
            pieces.append(line)
            wanted -= len(line)
        self._count_lines()
        self._buffer = self._buffer[self._place :] + "".join(pieces)
        self._place = self._counted = 0
        return bool(pieces)
