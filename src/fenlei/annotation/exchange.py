"""Suggestions to the files that annotators work on: doccano, Label Studio, Argilla, or plain JSON lines. `train` reads all of them back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import quoteattr

from fenlei.annotation.suggest import ADDED, Suggestion, is_label
from fenlei.artifact import checked_path, write_text
from fenlei.data.encodings import same_file
from fenlei.data.jsonvalues import to_json
from fenlei.errors import ConfigError, DataError

Format = Literal["jsonl", "doccano", "label-studio", "argilla"]
SUFFIX = {"jsonl": ".jsonl", "doccano": ".jsonl", "label-studio": ".json", "argilla": ".json"}


def render(suggestions: Sequence[Suggestion], format: Format, model: str) -> str:
    """The text of the file. `model` is called the source of the pre-annotations. DataError for columns that clash."""
    if format == "label-studio":
        return _array([_task(one, model) for one in suggestions])
    if format == "argilla":
        return _array([_record(one, key, model) for one, key in zip(suggestions, _keys(suggestions), strict=True)])
    to_row: Callable[[Suggestion], dict[str, Any]] = _doccano_row if format == "doccano" else _plain_row
    return "".join(to_json(to_row(one)) + "\n" for one in suggestions)


def _array(objects: Sequence[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(to_json, objects)) + "\n]\n"


def write_suggestions(suggestions: Sequence[Suggestion], out: Path, format: Format, labels: Sequence[str], model: str) -> tuple[Path, ...]:
    """Writes the file, for Label Studio also the labelling interface beside it as .xml; returns what was written."""
    checked_out(out, format, {one.example.source for one in suggestions})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render(suggestions, format, model))
    if format != "label-studio":
        return (out,)
    interface = out.with_suffix(".xml")
    write_text(interface, labelling_interface(labels, multi_label=any(isinstance(one.answer, list) for one in suggestions)))
    return out, interface


def checked_out(out: Path, format: Format, pool: Iterable[str]) -> None:
    """ConfigError where `out` has an ending that the format's readers would take for something else, or is a file of the pool, or a URL."""
    if format not in get_args(Format):
        raise ConfigError(f"format must be one of {', '.join(get_args(Format))}, was {format!r}")
    checked_path(out)
    if out.suffix != SUFFIX[format] or out.is_dir():
        raise ConfigError(f"{out}: a file of the format {format} ends in {SUFFIX[format]}")
    if any(same_file(file, out) for file in pool):
        raise ConfigError(f"{out}: is the pool that texts are picked from; give another name, so that nothing is lost")


def labelling_interface(labels: Sequence[str], *, multi_label: bool = False) -> str:
    """Label Studio's XML for one choice a text, or several, under the names that the tasks use."""
    choice = "multiple" if multi_label else "single"
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View>\n  <Text name="text" value="$text"/>\n  <Choices name="label" toName="text" choice="{choice}" showInLine="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def _plain_row(one: Suggestion) -> dict[str, Any]:
    return {**_columns(one), "label": one.answer, **_figures(one)}


def _doccano_row(one: Suggestion) -> dict[str, Any]:
    return {**_with_text(one), "label": _list(one.answer), **_figures(one)}


def _task(one: Suggestion, model: str) -> dict[str, Any]:
    choice = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": _list(one.answer)}}
    data = {**_with_text(one), **_figures(one)}
    return {"data": data, "predictions": [{"model_version": model, "score": round(one.confidence, 6), "result": [choice]}]}


def _list(answer: str | list[str]) -> list[str]:
    return [answer] if isinstance(answer, str) else answer


def _keys(suggestions: Sequence[Suggestion]) -> list[str]:
    """The rows' own ids; where one is missing or comes twice, the row's place: two records with one id are one to Argilla."""
    given = [one.example.columns.get("id") for one in suggestions]
    times = Counter(map(str, given))
    return [
        str(own) if own not in (None, "") and times[str(own)] == 1 else f"{Path(one.example.source).name}:{one.example.line}"
        for one, own in zip(suggestions, given, strict=True)
    ]


def _record(one: Suggestion, key: str, model: str) -> dict[str, Any]:
    """As Argilla's `records.from_json` reads it: the text is a field, the other columns are metadata."""
    others = {name: value for name, value in _with_text(one).items() if name not in ("id", "text") and value != one.example.text}
    suggestion: dict[str, Any] = {"value": one.answer, "agent": _agent(model)}
    if isinstance(one.answer, str):  # the server refuses a list with one score
        suggestion["score"] = round(one.confidence, 6)
    return {
        "id": key,
        "fields": {"text": one.example.text},
        "metadata": {**others, **_figures(one)},
        "suggestions": {"label": suggestion} if one.answer else {},  # it refuses an empty list too
        "responses": {},
        "vectors": {},
    }


def _agent(model: str) -> str:
    """The model's name as the server of Argilla takes it: it refuses Chinese, most signs, and long names."""
    name = re.sub(r"[^a-zA-Z0-9_:./ -]", "_", model)[:200]
    return name if re.search(r"[a-zA-Z0-9]", name) else "fenlei"


def _with_text(one: Suggestion) -> dict[str, Any]:
    """The columns, and the text under the name that the tools show; DataError where a column of that name is another."""
    columns, text = _columns(one), one.example.text
    if str(columns.get("text") or text) != text:
        raise DataError(
            f"{one.example.where}: the pool has a column 'text' that is not the whole text that the run reads, which would go in its "
            "place; rename it (in --text-column too, if it is named there), or take --format jsonl"
        )
    return {**columns, "text": text}


def _columns(one: Suggestion) -> dict[str, Any]:
    """The row's own; those of ADDED that it has are of an earlier round (see `suggest`)."""
    return {name: value for name, value in one.example.columns.items() if not is_label(name) and name not in ADDED}


def _figures(one: Suggestion) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name in ADDED for value in [getattr(one, name)]}
