"""Rows that came from an annotation tool: a Label Studio task to a plain row. doccano's rows are plain already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from fenlei.data.delimited import Row
from fenlei.errors import DataError

LABEL = "label"
"""The column that a task's choice becomes."""


def is_task(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a task of Label Studio: its columns are in `data`, the answers beside it."""
    return isinstance(row.get("data"), dict) and any(isinstance(row.get(key), list) for key in ("annotations", "predictions"))


def without_tasks(rows: Iterator[Row], source: str, labelled: bool, multi_label: bool) -> tuple[Iterator[Row], bool]:
    """The rows, tasks of Label Studio laid flat, and whether the first is one. `multi_label`: rows may have any number of labels."""
    first = next(rows, None)
    if first is None:
        return iter(()), False
    everything = chain([first], rows)
    tasks = not isinstance(first[1], DataError) and is_task(first[1])
    return (_flat(everything, source, labelled, multi_label), True) if tasks else (everything, False)


def _flat(rows: Iterator[Row], source: str, labelled: bool, multi_label: bool) -> Iterator[Row]:
    """A row a task: its data, and as `label` what its annotators chose. Where labels are wanted, tasks without an answer are left out."""
    answered = 0
    tasks = 0
    if labelled:  # which question is meant shows in all tasks together: not each is asked, or answered, in every one
        rows = iter(kept := list(rows))
        questions = {question for _, task in kept if not isinstance(task, DataError) and is_task(task) for question in _answered(task)}
    else:
        questions = set()
    for line, task in rows:
        where = f"{source}:{line}"
        if isinstance(task, DataError):
            yield line, task
            continue
        if not is_task(task):
            found = f"found {list(task)[:6]}"
            yield line, DataError(f"{where}: expected a Label Studio task with `data` and `annotations`, as the first row is; {found}")
            continue
        tasks += 1
        try:
            label = _answer(task, where, multi_label, questions) if labelled else None
        except DataError as error:
            answered += 1
            yield line, error
            continue
        if label is not None:
            answered += 1
            yield line, {**_columns(task), LABEL: label}
        elif not labelled:
            yield line, _columns(task)
    if labelled and not answered:
        raise DataError(f"{source}: none of its {tasks:,} Label Studio tasks is annotated; export the project after the annotators' work")


def _columns(task: Mapping[str, Any]) -> dict[str, Any]:
    """Its data, and the id by which an answer finds the task again; an `id` within the data wins."""
    return {**({"id": task["id"]} if "id" in task else {}), **task["data"]}


def _answer(task: Mapping[str, Any], where: str, multi_label: bool, questions: set[str]) -> list[str] | None:
    """The choices of most annotators, multi-label any number of them; None where nobody answered. `questions` are all that were answered.

    DataError where annotators are split, or there are several questions. To submit a task without a choice says, multi-label, that it has
    no label.
    """
    try:
        answers = [_choices(one) for one in task.get("annotations") or () if not one.get("was_cancelled")]
    except (AttributeError, TypeError, KeyError):
        raise DataError(f"{where}: `annotations` is not what Label Studio writes; export the project as JSON again") from None
    if answers and len(questions) > 1 and LABEL not in questions:
        found = ", ".join(sorted(questions))
        raise DataError(f"{where}: expected one question, found choices for {found}; call the one that is meant {LABEL!r} (its from_name)")
    question = LABEL if LABEL in questions else next(iter(questions), None)
    votes: Counter[tuple[str, ...]] = Counter()
    for answer in answers:
        chosen = [tuple(sorted(choices)) for asked, choices in answer if asked == question]
        votes.update(chosen or ([()] if multi_label else []))
    best = votes.most_common(2)
    if len(best) == 2 and best[0][1] == best[1][1]:
        raise DataError(f"{where}: annotators disagree: {_told(best[0][0])} and {_told(best[1][0])}; settle it, or cancel one answer")
    return list(best[0][0]) if best else None


def _answered(task: Mapping[str, Any]) -> set[str]:
    """The questions that anybody answered; none where the task is not what Label Studio writes."""
    try:
        answers = [_choices(one) for one in task.get("annotations") or () if not one.get("was_cancelled")]
    except (AttributeError, TypeError, KeyError):
        return set()
    return {question for answer in answers for question, _ in answer}


def _told(choices: Sequence[str]) -> str:
    return ", ".join(map(repr, choices)) or "no choice"


def _choices(annotation: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What one annotator chose: each question that he answered, and the choices. TypeError where it is not so written."""
    results = (result for result in annotation.get("result") or () if result.get("type") == "choices")
    found = [(str(result.get("from_name")), list(result["value"]["choices"])) for result in results]
    if not all(isinstance(choice, str) for _, choices in found for choice in choices):
        raise TypeError("a choice that is no text")
    return [(question, choices) for question, choices in found if choices]
