"""One text or a pair of them: what a classifier is asked, and whether it fits what the run was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from fenlei.errors import ConfigError, RequestError

Pair: TypeAlias = tuple[str, str]
"""First and second text: premise and hypothesis, question and answer."""
Text: TypeAlias = str | Pair
"""What a row asks: all of one call are texts, or all are pairs."""

PAIR_COLUMN = "pair_column"
"""Key of a run's manifest: the column of the second text. Runs on single texts have none."""
TEXT_COLUMN = "text_column"
"""Beside it: that of the first, as it was named; None where it was found by its name."""


def check_texts(texts: Iterable[Text], *, pairs: bool) -> list[Text]:
    """The texts, as `listed`; RequestError too where anything is not a text (with `pairs`: a pair of texts) of valid Unicode."""
    given = listed(texts, pairs=pairs)
    for at, text in enumerate(given):
        _check_shape(at, text, pairs)
        for part in (text,) if isinstance(text, str) else text:
            if not is_unicode(part):
                raise RequestError(f"text {at} {part!r} is no valid Unicode (a lone surrogate); decode it with the right encoding")
    return given


def listed(texts: Iterable[Text], *, pairs: bool = False) -> list[Text]:
    """The texts by their places: a Series would be looked up by its index. RequestError for a lone string, and for a table, which hands
    out the names of its columns.
    """
    what = "pairs" if pairs else "texts"
    if isinstance(texts, str):
        raise RequestError(f"expected a list of {what}, found one string; write [{_shape(pairs)}]")
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        found = type(texts).__name__
        raise RequestError(f"expected a list of {what}, found {found}; give one column, as frame['text'], or use predict_frame")
    return list(texts)


def told_columns(text_column: str | None, pair_column: str | None) -> dict[str, str | None]:
    """What the manifest of a run on pairs says of its columns; nothing for one on single texts."""
    return {} if pair_column is None else {TEXT_COLUMN: text_column, PAIR_COLUMN: pair_column}


def columns_of(manifest: Mapping[str, Any], text_column: str | None, pair_column: str | None) -> tuple[str | None, str | None]:
    """The columns of both texts for rows that a run is to read: those given, else of a run on pairs its own.

    A service names the column of any run; that of single texts is for the command line, as config.yaml is of a run that is here.
    ConfigError where a second is given and the run reads single texts.
    """
    own = manifest.get(TEXT_COLUMN) if manifest.get(PAIR_COLUMN) is not None else None
    return text_column or own, pair_column_of(manifest, pair_column)


def pair_column_of(manifest: Mapping[str, Any], given: str | None) -> str | None:
    """The column of the second text for rows that a run is to read: that `given`, else its own; None for a run on single texts.

    ConfigError where one is given and the run reads single texts.
    """
    own: str | None = manifest.get(PAIR_COLUMN)
    if own is None and given is not None:
        raise ConfigError(f"pair_column {given!r}: this run reads single texts, since it was trained without pairs; leave it out")
    return given or own


def is_unicode(text: str) -> bool:
    """Whether a text can be written down: not so with a lone surrogate, half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_shape(at: int, text: Any, pairs: bool) -> None:
    if pairs and (isinstance(text, str) or not isinstance(text, Sequence) or len(text) != 2 or not all(isinstance(t, str) for t in text)):
        found = f"one text, {text!r}" if isinstance(text, str) else f"{type(text).__name__} {text!r}"
        raise RequestError(f"text {at} is {found}; this run was trained on pairs of texts, so write {_shape(pairs)}")
    if not pairs and not isinstance(text, str):
        cure = "; this run was not trained on pairs" if isinstance(text, (tuple, list)) and len(text) == 2 else ""
        raise RequestError(f"text {at} is {type(text).__name__} {text!r}, expected a string{cure}")


def _shape(pairs: bool) -> str:
    return "(first, second)" if pairs else "text"
