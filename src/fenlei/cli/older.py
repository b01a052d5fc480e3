"""Command lines of older scripts, as pasted after `fenlei train` or `fenlei predict`: their options to those of fenlei.

Known are main.py of LLM-TextClassification and infer.py of Qwen-Chinese-News-Classification (see docs/migrate.md), transformers'
run_classification.py, ms-swift and LLaMA-Factory. What has no counterpart is said, with the reason, and left out; an option that nobody
knows stays as it is, for the parser to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import typer

from fenlei.cli import older_options as known
from fenlei.config.model import ADAPTERS
from fenlei.errors import ConfigError
from fenlei.hubs.repository import is_id

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")


@dataclass
class _Translation:
    command: str
    arguments: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    """What is an argument here and was an option there; goes last."""
    dev: list[str] = field(default_factory=list)
    subset: str | None = None
    kept: dict[str, str] = field(default_factory=dict)
    """Values of options that mean something beside others only, until all is read."""


def translate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line in fenlei's words, and what to tell of the options that have no effect. Other commands come back as they are.

    ConfigError where something else than a classifier is asked for.
    """
    command, words = arguments[0] if arguments else "", list(arguments[1:])
    if command not in known.COMMANDS:
        return list(arguments), []
    done = _Translation(command)
    seen: set[str] = set()
    while words:
        word = words.pop(0)
        if word == "--":
            done.arguments += [word, *words]
            break
        spelled, attached, value = word.removeprefix("--").partition("=")
        name = spelled.replace("-", "_")
        if not word.startswith("--") or name not in known.COMMANDS[command]:
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
    """The value that follows an option; booleans may stand alone, and the words of a list are joined by commas."""
    if not words or (name in known.BOOLEANS and words[0].lower() not in _TRUE + _FALSE):
        return None
    taken = [words.pop(0)]
    # The data may stand behind a list, so a list ends at a file too.
    while name in known.LISTS and words and _MODULE.fullmatch(words[0]) and not _is_file(words[0]):
        taken.append(words.pop(0))
    return ",".join(taken)


def _one(done: _Translation, name: str, value: str | None) -> None:
    if name in known.DATA[done.command]:
        done.positional.append(_data(name, value or "", done))
    elif name == known.RUN:
        done.arguments.insert(0, value or "")
    elif name in known.DEV:
        done.dev.append(_data(name, value or "", done))
    elif name == known.SUBSET:
        done.subset = value
    elif name in known.RENAMED:
        done.arguments += [known.RENAMED[name], *([] if value is None else [known.VALUES.get((name, value), value)])]
    elif name in known.TOGETHER:
        done.kept[name] = value or ""
    elif name in known.SWITCHES:
        on, off = known.SWITCHES[name]
        done.arguments += (off if (value or "").lower() in _FALSE else on).split()
    elif done.command == "predict":
        done.notes.append(_note(name, value, known.IGNORED_BY_PREDICT[name]))
    else:
        _by_value(done, name, value)


def _by_value(done: _Translation, name: str, value: str | None) -> None:
    """An option of which some values may mean something here, and the others nothing."""
    asked = (value or "true").lower()
    if asked in known.REFUSED.get(name, ()):
        raise ConfigError(
            f"--{name} {asked}: fenlei only classifies, and takes a number for the name of a class; it predicts no numbers, "
            "so leave the option out, or take another program"
        )
    words = known.WORDS.get((name, asked))
    if words is not None:
        done.arguments += words.split()
    elif name in known.AS_IT_IS:
        usual, reason = known.AS_IT_IS[name]
        if asked not in usual:
            done.notes.append(_note(name, value, reason))
    else:
        done.notes.append(_note(name, value, known.IGNORED[name]))


def _data(name: str, value: str, done: _Translation) -> str:
    """A file or folder as it is; a data set that is not there by the hub that the option meant."""
    if name == "dataset_name":
        return f"hf:{value}"
    bare, sampled, _ = value.partition("#")
    if sampled:
        done.notes.append(f"--{name} {value}: all of its rows are used, not those that the number behind # says")
    repository = bare.partition(":")[0]
    on_hub = name in known.HUB_IDS and "/" in repository and is_id(repository) and not _is_file(bare)
    return f"modelscope:{bare}" if on_hub else bare


def _is_file(name: str) -> bool:
    """Whether a file or folder is called so, or its ending is one of rows."""
    from fenlei.data.formats import SUFFIXES, suffix_of

    return Path(name).exists() or suffix_of(name) in SUFFIXES


def _together(done: _Translation, seen: set[str]) -> None:
    """What several options say together, or by being absent."""
    if done.subset and done.positional:
        done.positional[0] += f":{done.subset}"
    if "use_hf" in seen and "huggingface" in done.arguments:
        done.positional, done.dev = ([one.replace("modelscope:", "hf:", 1) for one in named] for named in (done.positional, done.dev))
    for dev in done.dev:
        done.arguments += ["--dev", dev]
    _rows_of_a_step(done)
    _dev_share(done)
    if seen & known.TRAIN_ALL and "use_lora" not in seen and _said(done, "--tuning") is None:
        done.arguments += ["--tuning", "full"]
        done.notes.append("--tuning full: that script trains all weights where nothing else is said (--tuning lora takes less memory)")
    _four_bits(done)


def _rows_of_a_step(done: _Translation) -> None:
    """Rows a device and steps that are added up: together the rows of an optimiser step."""
    device_rows, steps = (done.kept.get(name) for name in known.PER_STEP)
    if device_rows is not None:
        both = (device_rows, steps or "1")
        done.arguments += ["--batch-size", str(int(both[0]) * int(both[1])) if all(one.isdecimal() for one in both) else device_rows]
    elif steps is not None:
        done.notes.append(_note(known.PER_STEP[1], steps, "--batch-size says the rows of a whole step"))


def _dev_share(done: _Translation) -> None:
    """The share of rows for dev. Others write 0 where a file has the dev rows, or for none; LLaMA-Factory counts rows from 1 on."""
    for name in known.DEV_SHARES:
        value = done.kept.get(name)
        if value is None:
            continue
        share = float(value) if re.fullmatch(r"\d*\.?\d+", value) else None
        if _said(done, "--dev") is not None:
            if share != 0:
                done.notes.append(_note(name, value, "--dev names the dev rows"))
        elif share == 0:
            reason = "dev rows choose the checkpoint and calibrate it; where the data brings none, 15 % are set aside (--dev-ratio)"
            done.notes.append(_note(name, value, reason))
        elif share is not None and share >= 1:
            done.notes.append(_note(name, value, "--dev-ratio is a share of the rows, such as 0.1; without it 15 % are set aside"))
        else:
            done.arguments += ["--dev-ratio", value]


def _four_bits(done: _Translation) -> None:
    """Those scripts say LoRA and the bits of the weights below it apart from each other, and mean LoRA where they name no tuning."""
    for name in known.BITS:
        value = done.kept.get(name)
        if value == "4" and _said(done, "--tuning") in (None, *ADAPTERS):
            done.arguments += ["--tuning", "qlora"]
        elif value is not None:
            done.notes.append(_note(name, value, "--tuning qlora trains adapters over weights of 4 bits; other bits are not trained over"))


def _said(done: _Translation, option: str) -> str | None:
    """The value that an option has so far; given twice, the last one counts."""
    said: str | None = None
    for word, following in pairwise([*done.arguments, ""]):
        name, equals, value = word.partition("=")
        if name == option:
            said = value if equals else following
    return said


def _note(name: str, value: str | None, reason: str) -> str:
    return f"--{name}{'' if value is None or name in known.SECRETS else ' ' + value} has no effect: {reason}"
