"""Every error that fenlei raises on purpose.

FenleiError
├── ConfigError      an option or a combination of options that cannot work
├── DataError        a file or a row that cannot be read or does not fit
├── ModelError       a model that cannot be found, loaded or used this way
│   └── ScoresError  scores of texts that are no numbers
├── ArtifactError    a run's folder that is incomplete, damaged or in the way
└── RequestError     a prediction request that cannot be answered

The message says what was expected, what was found (file, line, value) and what to do. The command line prints it without a
traceback and ends with 1; the service maps it to a 4xx answer.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence


class FenleiError(Exception):
    """Root of the hierarchy: catch it to catch all of them."""


class ConfigError(FenleiError):
    """An option or a combination of options that cannot work."""


class DataError(FenleiError):
    """A file or a row that cannot be read or does not fit."""


class ModelError(FenleiError):
    """A model that cannot be found, loaded or used this way."""


class ScoresError(ModelError):
    """Scores of texts that are no numbers."""

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:  # a default: one that is unpacked begins as its message alone
        super().__init__(message)
        self.rows = tuple(rows)
        """Of which texts, by their places among those that were asked."""


class ArtifactError(FenleiError):
    """A run's folder that is incomplete, damaged or in the way."""


class RequestError(FenleiError):
    """A prediction request that cannot be answered."""


_WRITER = reprlib.Repr()
_WRITER.maxlevel = 3
_WRITER.maxlist = _WRITER.maxtuple = _WRITER.maxdict = _WRITER.maxset = 20
_WRITER.maxstring = _WRITER.maxlong = _WRITER.maxother = 200  # they are cut in the middle: what is shown is before it


def first_line(error: BaseException) -> str:
    """What another library's error says, without the pages that some add; its name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def first_few(names: Sequence[str], most: int = 8) -> str:
    """Names joined by commas; where there are more than `most`, dots stand for the others."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def shortened(value: object) -> str:
    """A value as Python writes it, cut where it is long, and no more of it written: a stranger's may be endless."""
    shown = repr(value) if isinstance(value, str) else _WRITER.repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
