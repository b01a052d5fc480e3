"""Command lines of older scripts, as pasted after `fenlei train` or `fenlei predict`: their options to those of fenlei.

Known are main.py of LLM-TextClassification and infer.py of Qwen-Chinese-News-Classification (see docs/migrate.md), transformers'
run_classification.py, ms-swift and LLaMA-Factory. What has no counterpart is said, with the reason, and left out; an option that nobody
knows stays as it is, for the parser to refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from fenlei.cli.older_options import AS_IT_IS, BOOLEANS, COMMANDS, DATA, IGNORED, PER_STEP, RENAMED, SUBSET, SWITCHES, VALUES

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass
class _Translation:
    arguments: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    """What is an argument here and was an option there; goes last."""
    subset: str | None = None
    rows: dict[str, str] = field(default_factory=dict)
    """Rows a device and steps that are added up: together the rows of an optimiser step."""


def translate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line in fenlei's words, and what to tell of the options that have no effect. Other commands come back as they are."""
    command, words = arguments[0] if arguments else "", list(arguments[1:])
    if command not in COMMANDS:
        return list(arguments), []
    done = _Translation()
    seen: set[str] = set()
    while words:
        word = words.pop(0)
        if word == "--":
            done.arguments += [word, *words]
            break
        spelled, attached, value = word.removeprefix("--").partition("=")
        name = spelled.replace("-", "_")
        if not word.startswith("--") or name not in COMMANDS[command]:
            done.arguments.append(_dashed(word))
            continue
        seen.add(name)
        given = value if attached else _taken(name, words)
        _one(done, name, given)
    _together(done, seen)
    return [command, *done.arguments, *done.positional], done.notes


def told(arguments: Sequence[str]) -> list[str]:
    """`translate`, its notes printed."""
    translated, notes = translate(arguments)
    for note in notes:
        typer.echo(note, err=True)
    return translated


def _dashed(word: str) -> str:
    """`--lora_rank=8` as `--lora-rank=8`; an option of fenlei in the spelling of Python scripts."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _taken(name: str, words: list[str]) -> str | None:
    """The value that follows an option; booleans may stand alone."""
    if not words or (name in BOOLEANS and words[0].lower() not in _TRUE + _FALSE):
        return None
    return words.pop(0)


def _one(done: _Translation, name: str, value: str | None) -> None:
    if name in DATA:
        done.positional.append(_data(name, value or "", done))
    elif name == SUBSET:
        done.subset = value
    elif name in RENAMED:
        done.arguments += [RENAMED[name], *([] if value is None else [value])]
    elif name in PER_STEP:
        done.rows[name] = value or ""
    elif name in SWITCHES:
        on, off = SWITCHES[name]
        done.arguments += (off if (value or "").lower() in _FALSE else on).split()
    elif name in VALUES:
        option, known = VALUES[name]
        done.arguments += [option, known.get(value or "", value or "")]
    elif name in AS_IT_IS:
        usual, reason = AS_IT_IS[name]
        if (value or "true").lower() not in usual:
            done.notes.append(_note(name, value, reason))
    else:
        done.notes.append(_note(name, value, IGNORED[name]))


def _data(name: str, value: str, done: _Translation) -> str:
    """A file or folder as it is; a data set that is not there by the hub that the option meant."""
    if name == "dataset_name":
        return f"hf:{value}"
    bare, sampled, _ = value.partition("#")
    if sampled:
        done.notes.append(f"--{name} {value}: all of its rows are used, not those that the number behind # says")
    is_id = name == "dataset" and bare.count("/") == 1 and not Path(bare).exists() and not Path(bare).suffix
    return f"modelscope:{bare}" if is_id else bare


def _together(done: _Translation, seen: set[str]) -> None:
    """What several options say together, or by being absent."""
    if done.subset and done.positional:
        done.positional[0] += f":{done.subset}"
    if "use_hf" in seen and "huggingface" in done.arguments:
        done.positional = [data.replace("modelscope:", "hf:", 1) for data in done.positional]
    device_rows, steps = (done.rows.get(name) for name in PER_STEP)
    if device_rows is not None:
        both = (device_rows, steps or "1")
        done.arguments += ["--batch-size", str(int(both[0]) * int(both[1])) if all(one.isdecimal() for one in both) else device_rows]
    elif steps is not None:
        done.notes.append(_note(PER_STEP[1], steps, "--batch-size says the rows of a whole step"))
    if "is_training" in seen and "use_lora" not in seen and not any(one.split("=")[0] == "--tuning" for one in done.arguments):
        done.arguments += ["--tuning", "full"]
        done.notes.append("--use_lora is not given: full tuning, as in that script (--tuning lora takes less memory)")


def _note(name: str, value: str | None, reason: str) -> str:
    return f"--{name}{'' if value is None else ' ' + value} has no effect: {reason}"
