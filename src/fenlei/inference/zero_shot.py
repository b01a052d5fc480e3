"""A language model as a classifier without any training: labels are all it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fenlei.config import Device, Long, Source
from fenlei.config.model import DEFAULT_MAX_LENGTH
from fenlei.data.label_file import read_label_file
from fenlei.data.labelling import Labelling
from fenlei.errors import ConfigError
from fenlei.inference.loading import LoadedRun
from fenlei.labels import LabelNote, LabelSet, noted
from fenlei.models.backbone import backbone_parameters, load_language_model, load_tokenizer
from fenlei.models.configuration import load_config, longest_input
from fenlei.models.devices import LARGER, fitting, pick_device, pick_precision
from fenlei.models.fingerprint import weights_fingerprint
from fenlei.models.generate import GenerateMethod
from fenlei.models.hub import is_local, resolve_model
from fenlei.text.asking import QuestionEncoder
from fenlei.text.instructions import compose


def load_zero_shot(
    model: str,
    labels: Sequence[str] | Mapping[str, LabelNote | str] | Path,
    *,
    prompt: str | None = None,
    examples: Sequence[tuple[str, str]] = (),
    multi_label: bool = False,
    prior_correction: bool | None = None,
    max_length: int | None = None,
    long: Long = "truncate",
    revision: str | None = None,
    source: Source = "auto",
    device: Device = "auto",
) -> LoadedRun:
    """A run that nobody trained. ConfigError where labels or prompt do not fit the model, ModelError where it is no language model.

    multi_label: any number of labels may be the answer, each from a probability of one half on. prior_correction None: unless multi_label,
    for there an empty text would be the measure of every yes.
    """
    correct = not multi_label if prior_correction is None else prior_correction
    notes = _label_notes(labels)
    names = LabelSet(tuple(notes))
    if len(names) < 2:
        raise ConfigError(f"expected at least two labels to choose among, found {len(names)}: {', '.join(names)}")
    strange = next((label for _, label in examples if label not in names), None)
    if strange is not None:
        raise ConfigError(f"examples: {names.unknown(strange)}")
    if long in ("mean", "max"):
        raise ConfigError(f"long {long!r} belongs to method head; the scores of windows are averaged: long 'windows'")
    if "{pair}" in (prompt or ""):
        raise ConfigError("prompt has a place for a second text, {pair}, and without a run single texts are read; leave it out")
    base = resolve_model(model, revision=revision, source=source)
    tokenizer = load_tokenizer(base)
    model_takes = longest_input(load_config(base))
    length = min(max_length or (model_takes if long == "full" else DEFAULT_MAX_LENGTH), model_takes)
    instruction = compose(tokenizer, prompt, names.names, notes, examples, multi_label=multi_label)
    encoder = QuestionEncoder(tokenizer, instruction, names, length, long)
    encoder.question()  # what cannot be asked shows before the model is loaded
    place, _ = pick_device(device)
    precision = pick_precision(place, backbone_parameters(base, None))
    network = load_language_model(base, int(tokenizer.pad_token_id), layers=None, dtype=precision.weights)
    with fitting(place, LARGER):
        method = GenerateMethod(network.requires_grad_(False), int(tokenizer.pad_token_id), correct_prior=correct).to(place).eval()
    manifest = {
        "labels": list(names), "method": "generate", "tuning": "none", "head": None, "prompt": encoder.template,
        "instruction": encoder.instruction.to_json(), "prior_correction": correct, "max_length": length,
        "long": long, "layers": None,
        "temperature": 1.0, "calibrated": False, **Labelling(multi_label).to_json(),
        "base_model": {
            "name": model, "local": is_local(model), "folder": str(base), "weights_fingerprint": weights_fingerprint(base),
        },
    }  # fmt: skip
    return LoadedRun(method, encoder, names, manifest)


def _label_notes(labels: Sequence[str] | Mapping[str, LabelNote | str] | Path) -> dict[str, LabelNote]:
    if isinstance(labels, Path):
        return read_label_file(labels)
    if isinstance(labels, str):
        raise ConfigError(f"expected a list of labels, found one string {labels!r}; write [label, ...], or Path(...) for a file of them")
    _check_names(labels)
    return noted(labels) if isinstance(labels, Mapping) else dict.fromkeys(map(str, labels), LabelNote())


def _check_names(labels: Iterable[Any]) -> None:
    """ConfigError for a number or a missing value, as a column of labels may hold them."""
    wrong = [one for one in labels if not isinstance(one, str)]
    if wrong:
        raise ConfigError(f"labels: {wrong[0]!r} is no label; expected texts, as {str(wrong[0])!r}")
