"""Rows that came from Argilla, nested as `records.to_json` writes them or flat as `to_list(flatten=True)`: a record to a plain row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from fenlei.data.annotated import LABEL
from fenlei.data.delimited import Row
from fenlei.errors import DataError

_OWN = ("fields", "metadata", "suggestions", "responses", "vectors", "status", "_server_id")
_FLAT = ".responses"
_UNCOUNTED = ("draft", "discarded")
_MISWRITTEN = (AttributeError, TypeError, KeyError, ValueError)
"""What reading the answers raises where a record is not what Argilla writes."""


def is_record(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a record of Argilla."""
    nested = isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), dict)
    return nested or ("_server_id" in row and any(_is_of_a_question(name) for name in row))


def without_records(rows: Iterator[Row], source: str, labelled: bool) -> tuple[Iterator[Row], bool]:
    """The rows, records of Argilla laid flat, and whether the first is one."""
    first = next(rows, None)
    if first is None:
        return iter(()), False
    everything = chain([first], rows)
    records = not isinstance(first[1], DataError) and is_record(first[1])
    return (_plain(everything, source, labelled), True) if records else (everything, False)


def _plain(rows: Iterator[Row], source: str, labelled: bool) -> Iterator[Row]:
    """A row a record: its fields and metadata, and as `label` what its annotators answered; with `labelled` only those with one."""
    answered = 0
    records = 0
    questions: set[str] = set()
    if labelled:  # which question is meant shows in all records together: not each is asked, or answered, in every one
        rows = iter(kept := list(rows))
        questions = {question for _, record in kept if not isinstance(record, DataError) for question in _answered(record)}
    for line, record in rows:
        if isinstance(record, DataError):
            yield line, record
            continue
        records += 1
        row = _columns(record)
        try:
            label = _answer(record, f"{source}:{line}", questions) if labelled else None
        except DataError as error:
            answered += 1
            yield line, error
            continue
        if label is not None:
            answered += 1
            yield line, {**row, LABEL: label}
        elif not labelled:
            yield line, row
    if labelled and not answered:
        raise DataError(f"{source}: none of its {records:,} Argilla records is answered; export the data set after the annotators' work")


def _columns(record: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(record.get("fields"), dict):
        # Fields twice: they come first, and what annotators saw goes before metadata of the same name.
        metadata = record.get("metadata")
        return {"id": record.get("id"), **record["fields"], **(metadata if isinstance(metadata, dict) else {}), **record["fields"]}
    questions = [name.partition(".")[0] for name in record if _is_of_a_question(name)]
    ours = (*_OWN, *questions)
    return {name: value for name, value in record.items() if name not in ours and name.partition(".")[0] not in questions}


def _answer(record: Mapping[str, Any], where: str, questions: set[str]) -> Any:
    """The answer of most annotators; None where nobody answered. `questions` are all that were answered.

    DataError where annotators are split, or there are several questions.
    """
    try:
        answers = _answers(record)
        if any(answers.values()) and len(questions) > 1 and LABEL not in questions:
            found = ", ".join(sorted(questions))
            raise DataError(f"{where}: expected one question, found answers to {found}; call the one that is meant {LABEL!r}")
        question = LABEL if LABEL in questions else next(iter(questions), None)
        given = (sorted(value) if isinstance(value, list) else value for value in answers.get(question or "", ()))
        votes = Counter(json.dumps(value, ensure_ascii=False) for value in given)
    except _MISWRITTEN:
        raise DataError(f"{where}: is not what Argilla writes; export the data set again") from None
    best = votes.most_common(2)
    if len(best) == 2 and best[0][1] == best[1][1]:
        raise DataError(f"{where}: annotators disagree: {best[0][0]} and {best[1][0]}; settle it, or discard one of the answers")
    return json.loads(best[0][0]) if best else None


def _answered(record: Mapping[str, Any]) -> set[str]:
    """The questions that anybody answered; none where the record is not what Argilla writes."""
    try:
        return {question for question, values in _answers(record).items() if values}
    except _MISWRITTEN:
        return set()


def _answers(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The answers to each question."""
    return _nested(record) if isinstance(record.get("fields"), dict) else _flat(record)


def _nested(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        question: [one["value"] for one in answers if one["value"] is not None]
        for question, answers in (record.get("responses") or {}).items()
    }


def _flat(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    answers = {}
    for name in record:
        if name.endswith(_FLAT):
            values = record[name] or []
            states = record.get(f"{name}.status") or [None] * len(values)
            kept = [value for value, state in zip(values, states, strict=True) if value is not None and state not in _UNCOUNTED]
            answers[name.removesuffix(_FLAT)] = kept
    return answers


def _is_of_a_question(name: str) -> bool:
    return name.endswith((_FLAT, ".suggestion"))
