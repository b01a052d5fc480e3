"""Rows that are conversations, as ms-swift and LLaMA-Factory train on them: a conversation to a row with a text and a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from fenlei.data.annotated import LABEL
from fenlei.data.columns import LABEL_NAMES, TEXT_NAMES, find_name, named_texts
from fenlei.data.delimited import Row
from fenlei.errors import DataError

TEXT = "text"
"""The column that the user's turns become."""

_TURNS = ("messages", "conversations")
_USER, _ASSISTANT = ("user", "human"), ("assistant", "gpt")


def with_texts(rows: Iterator[Row], source: str, labelled: bool, text_column: str | None) -> tuple[Iterator[Row], bool]:
    """The rows, conversations with their text and label beside them, and whether the first is one that has no text of its own.

    `text_column`: as the user named it, None where he did not; what he named may be the turns' text, alone or with other columns.
    """
    first = next(rows, None)
    if first is None:
        return iter(()), False
    everything = chain([first], rows)
    chats = not isinstance(first[1], DataError) and _turns(first[1]) is not None and not _has_text(first[1], text_column)
    return (_told(everything, source, labelled), True) if chats else (everything, False)


def _has_text(row: Mapping[str, Any], text_column: str | None) -> bool:
    """Whether a row has all that the user named, or, whatever he named, a column that data sets call the text."""
    if find_name(row, TEXT_NAMES) is not None:
        return True
    return text_column is not None and all(name in row for name in named_texts(text_column, row))


def _told(rows: Iterator[Row], source: str, labelled: bool) -> Iterator[Row]:
    """The user's turns as text; where labels are wanted and a row has no column of them, the last answer as label."""
    for line, row in rows:
        turns = None if isinstance(row, DataError) else _turns(row)
        if isinstance(row, DataError):
            yield line, row
        elif turns is None:
            found = f"found {list(row)[:6]}"
            yield line, DataError(f"{source}:{line}: expected a conversation, turns in `messages` as in the first row, {found}; correct it")
        else:
            answers = [said for who, said in turns if who in _ASSISTANT]
            answer = {LABEL: answers[-1]} if labelled and answers and find_name(row, LABEL_NAMES) is None else {}
            yield line, {**row, TEXT: "\n".join(said for who, said in turns if who in _USER), **answer}


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Who says what, in order; None where a row is no conversation."""
    turns = next((row[name] for name in _TURNS if isinstance(row.get(name), list)), None)
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        return None
    said = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in turns]
    return said if all(isinstance(who, str) and isinstance(what, str) for who, what in said) else None
