"""What a training run can be told, and every default. YAML in and out.

The YAML file is flat: its keys are the command's options with underscores. None means "chosen by fenlei"; the choice and its
reason are printed and stored.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fenlei.errors import ConfigError

Method = Literal["head", "generate"]
Tuning = Literal["full", "lora", "qlora", "frozen", "none"]
Objective = Literal["labels", "tokens"]
HeadKind = Literal["linear", "mlp"]
Long = Literal["truncate", "head-tail", "full", "windows", "mean", "max"]
Imbalance = Literal["none", "balanced", "effective-number", "focal", "logit-adjustment", "balanced-sampling"]
Device = Literal["auto", "cpu", "cuda", "mps", "npu"]
Source = Literal["auto", "huggingface", "modelscope"]
SetScore = Literal["lac", "aps", "raps"]
Pruner = Literal["halving", "hyperband", "median", "none"]


SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b?", re.IGNORECASE)


def bytes_of(size: str) -> int | None:
    """`6GB` (10^9 each), `6GiB` (2^30 each) and the like in bytes; None for what is no size above 0."""
    match = SIZE.fullmatch(size.strip())
    if match is None:
        return None
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** (1 + "kmgt".index(unit.lower()))) or None


@dataclass(frozen=True)
class DataConfig:
    """Which rows, which columns, which split."""

    data: str | None = None
    """The labelled file or folder to train on."""
    text_column: str | None = None
    """Column of the text; several joined by commas are joined by a line break. None: found by name."""
    pair_column: str | None = None
    """Column of the second text, where rows are pairs of texts. None: a row is one text."""
    label_column: str | None = None
    """Column of the label. None: found by name."""
    multi_label: bool | None = None
    """Whether a row has any number of labels. None: where a training row lists several, or label_separator is given."""
    label_separator: str | None = None
    """Multi-label: what joins a row's labels in one string, as `,` or `|`. None: they are lists."""
    level_separator: str | None = None
    """Hierarchy: what joins the levels of a label's name, as `##` in 科技##手机. None: labels lie side by side."""
    class_file: str | None = None
    """A file of class names, one a line: gives their order, and names to ids in the data."""
    dev: str | None = None
    dev_ratio: float | None = None
    """Share of the rows set aside for dev where no dev file is given. None: 0.15."""
    test: str | None = None
    test_ratio: float | None = None
    """Share of the rows set aside for test. None: none."""
    max_train_rows: int | None = None
    """Train on so many of the training rows, each class giving its share. None: on all."""

    store_exemplars: int | None = None
    """Training rows of each class that the run keeps, so that `extend` needs no replay. None: none, and no text of theirs."""

    def problems(self) -> list[str]:
        found = self._label_problems()
        if self.pair_column is not None and self.pair_column in ("", self.text_column, self.label_column):
            found.append(f"pair_column must name a column of its own, that of the second text, was {self.pair_column!r}")
        if self.max_train_rows is not None and self.max_train_rows < 1:
            found.append(f"max_train_rows must be at least 1, was {self.max_train_rows}")
        for name, ratio in (("dev_ratio", self.dev_ratio), ("test_ratio", self.test_ratio)):
            if ratio is not None and not 0 < ratio < 1:
                found.append(f"{name} must lie between 0 and 1, was {ratio}")
        if self.dev is not None and self.dev_ratio is not None:
            found.append("dev and dev_ratio exclude each other: give a dev file or a share of the training rows")
        if self.test is not None and self.test_ratio is not None:
            found.append("test and test_ratio exclude each other: give a test file or a share of the training rows")
        if not found and (self.dev_ratio or 0) + (self.test_ratio or 0) >= 1:
            found.append("dev_ratio and test_ratio together leave no rows to train on")
        return found

    def _label_problems(self) -> list[str]:
        found = []
        if "" in (self.label_separator, self.level_separator):
            found.append("label_separator and level_separator must be one character or more, was ''")
        if self.multi_label is False and self.label_separator is not None:
            found.append(f"label_separator {self.label_separator!r} belongs to multi_label, which is off")
        if self.label_separator is not None and self.label_separator == self.level_separator:
            found.append(f"label_separator and level_separator must differ, both were {self.label_separator!r}")
        if self.store_exemplars is not None and self.store_exemplars < 1:
            found.append(f"store_exemplars must be at least 1, was {self.store_exemplars}")
        if self.store_exemplars is not None and self.multi_label:
            found.append("store_exemplars keeps rows of each class, and with multi_label a row has any number of them")
        return found


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and which part of it learns."""

    model: str | None = None
    """A local folder, `nano`, or a Hugging Face or ModelScope id."""
    revision: str | None = None
    source: Source = "auto"
    method: Method = "head"
    tuning: Tuning | None = None
    """None: full below 100 million parameters, else lora."""
    objective: Objective = "labels"
    """Generate: what the loss is normalised over. `labels`: the label set, as scores are; `tokens`: the vocabulary, token by token."""
    shots: int = 0
    """Generate: training rows shown in the prompt, the classes in turn; they are not trained on."""
    prior_correction: bool | None = None
    """Generate: take off what each label scores on an empty text. None: where nothing is tuned."""
    head: HeadKind = "linear"
    layers: int | None = None
    """Keep the lower N blocks of the backbone. None: all."""
    prompt: str | None = None
    """`zh`, `en`, or a template with {text} (generate: and {labels} before it; pairs: {pair} behind it, else the two are lines of {text}).
    None: the bare text; generate: the labels' language."""
    max_length: int | None = None
    """Tokens an input (a window) may have, prompt and special tokens included. None: 1024, of a window 512, or what the model takes if that
    is less."""
    long: Long | None = None
    """What is read of a text that is longer: its beginning (`truncate`), beginning and end (`head-tail`), all of it at once, as far as the
    model takes it (`full`), or all of it in windows, joined by learned attention (`windows`; generate: their scores averaged), or by the
    `mean` or `max` of their states. None: by the lengths of the training texts."""
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    """Above 0 the adapters take PEFT's own, slower path."""
    lora_targets: str = "all-linear"
    """`all-linear`, or module names joined by commas."""

    def problems(self) -> list[str]:
        found = []
        for name in ("layers", "max_length", "lora_rank", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(f"{name} must be at least 1, was {value}")
        if self.prompt is not None and self.prompt not in ("zh", "en") and self.prompt.count("{text}") != 1:
            found.append(f"prompt must be 'zh', 'en' or a template that contains {{text}} once, was {self.prompt!r}")
        if not 0 <= self.lora_dropout < 1:
            found.append(f"lora_dropout must be at least 0 and below 1, was {self.lora_dropout}")
        return [*found, *self._method_problems()]

    def _method_problems(self) -> list[str]:
        """Options of one method given to the other."""
        found = []
        if self.shots < 0:
            found.append(f"shots must be at least 0, was {self.shots}")
        if self.method == "generate":
            if self.head != "linear":
                found.append(f"head {self.head!r} belongs to method head; generate answers with the language model itself")
            if self.long in ("mean", "max"):
                found.append(f"long {self.long!r} belongs to method head; generate averages the scores of windows: long 'windows'")
            if self.tuning == "frozen":
                found.append("tuning 'frozen' belongs to method head; generate without training is tuning 'none'")
            return found
        if self.tuning == "none":
            found.append("tuning 'none' belongs to method generate; a head has to learn (tuning 'frozen' trains it alone)")
        if self.objective != "labels" or self.shots or self.prior_correction is not None:
            found.append("objective, shots and prior_correction belong to method generate")
        return found


@dataclass(frozen=True)
class OptimizationConfig:
    """How the network learns."""

    epochs: float | None = None
    """None: 3 for lora and full, 10 for frozen; more for few rows (see training/defaults.py)."""
    max_steps: int | None = None
    """Optimiser steps; overrides epochs."""
    learning_rate: float | None = None
    """None: by tuning and model size (see training/defaults.py)."""
    batch_size: int | None = None
    """Rows an optimiser step (the loss is their mean). None: 32; fewer for adapters on few rows, 128 for a small model with many."""
    batch_tokens: int | None = None
    """Tokens that go through the network at once; only memory and speed depend on it. None: 4096; on a GPU what its memory holds, up to
    16,384 (see training/memory.py)."""
    memory: str | None = None
    """What training may take at its peak, as 6GB or 800MB: fewer batch_tokens are chosen to fit, and gradient_checkpointing if need be."""
    int8: bool = False
    """LoRA: the frozen weights multiply in 8-bit integers, on CPUs with VNNI."""
    warmup_ratio: float = 0.06
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    imbalance: Imbalance = "none"
    """What is done for classes of few rows: rows weighed (`balanced`, `effective-number`), sure ones discounted (`focal`), each class made
    to win by its log prior (`logit-adjustment`), or rows drawn so that classes come alike (`balanced-sampling`); training/imbalance.py."""
    gradient_checkpointing: bool = False
    evals_per_epoch: int = 1
    early_stopping_patience: int | None = None
    """Evaluations without a better macro F1 on the selecting rows before training ends. None: never."""
    seed: int = 42
    device: Device = "auto"
    report_to: str = "none"
    """Experiment trackers joined by commas: tensorboard, wandb, swanlab, mlflow, ..."""
    baseline: bool = True
    """Fit the TF-IDF baseline on the same rows and show it beside the model."""

    def problems(self) -> list[str]:
        found = []
        for name in ("epochs", "max_steps", "learning_rate", "batch_size", "batch_tokens", "evals_per_epoch", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"{name} must be above 0, was {value}")
        if self.memory is not None and bytes_of(self.memory) is None:
            found.append(f"memory must be a size such as 6GB or 800MB, was {self.memory!r}")
        for name in ("max_grad_norm", "seed"):
            if getattr(self, name) < 0:
                found.append(f"{name} must be at least 0, was {getattr(self, name)}")
        for name in ("warmup_ratio", "weight_decay", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                found.append(f"{name} must be at least 0 and below 1, was {value}")
        return found


@dataclass(frozen=True)
class TrustConfig:
    """When an answer is to be believed, and what is said beside it."""

    min_confidence: float | None = None
    """Rows below this confidence are marked as abstained. None: none is."""
    target_accuracy: float | None = None
    """The accuracy that answered rows are to have: finds the least confidence on the calibrating rows."""
    set_coverage: float | None = None
    """How often prediction sets are to hold the right label. None: no sets."""
    set_score: SetScore = "lac"
    set_by_class: bool = False
    """Keep the coverage for the rows of each class, not over all rows alike."""
    out_of_scope: str | None = None
    """A file of texts outside the label set, by which the novelty score is chosen. None: energy."""

    @property
    def promises(self) -> bool:
        """Whether a threshold or sets are asked for."""
        return (self.min_confidence, self.target_accuracy, self.set_coverage) != (None, None, None)

    def problems(self) -> list[str]:
        found = []
        for name in ("min_confidence", "target_accuracy", "set_coverage"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                found.append(f"{name} must lie between 0 and 1, was {value}")
        if self.min_confidence is not None and self.target_accuracy is not None:
            found.append("min_confidence and target_accuracy exclude each other: give the threshold, or the accuracy it is to keep")
        return found


@dataclass(frozen=True)
class SearchConfig:
    """How options are searched for: those of `fenlei tune` that are none of a run."""

    trials: int = 20
    """Trials of the whole study, also when it is gone on with."""
    storage: str | None = None
    """`memory`, `journal:FILE`, or a database's URL. None: an SQLite file in the search's folder."""
    workers: int = 1
    """Processes on this machine, one trial each at a time."""
    pruner: Pruner = "halving"
    """Which trials end early: by asynchronous successive halving (Li et al. 2020), Hyperband (Li et al. 2018), the median, or none."""
    first_rows: int | None = None
    """Training rows of a trial's first stage. None: a ninth of all, at least 2,000."""

    def __post_init__(self) -> None:
        found = [
            f"{name} must be at least 1, was {getattr(self, name)}"
            for name in ("trials", "workers", "first_rows")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.pruner not in get_args(Pruner):
            found.append(f"pruner must be one of {', '.join(get_args(Pruner))}, was {self.pruner!r}")
        if self.storage == "memory" and self.workers > 1:
            found.append("storage 'memory' is known to one process only; leave it out, or give a file or a database for several workers")
        if found:
            raise ConfigError("\n".join(found))


@dataclass(frozen=True)
class RunConfig:
    """A whole training run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)

    def __post_init__(self) -> None:
        found = [*self.data.problems(), *self.model.problems(), *self.optimization.problems(), *self.trust.problems()]
        found += self._pair_problems()
        if self.model.objective == "tokens" and self.optimization.label_smoothing:
            found.append("label_smoothing spreads over the label set, which objective 'tokens' does not see")
        if self.model.objective == "tokens" and self.optimization.imbalance in ("focal", "logit-adjustment"):
            found.append(
                f"imbalance {self.optimization.imbalance!r} compares labels, which objective 'tokens' does not see; take balanced, "
                "effective-number or balanced-sampling"
            )
        if found:
            raise ConfigError("\n".join(found))

    def _pair_problems(self) -> list[str]:
        """Options that a run on pairs of texts cannot have, and what only such a run can."""
        prompt = self.model.prompt or ""
        if self.data.pair_column is None:
            return ["prompt has a place for a second text, {pair}, and rows have one text; give pair_column"] if "{pair}" in prompt else []
        found = []
        if self.model.long in ("windows", "mean", "max"):
            found.append(
                f"long {self.model.long!r} reads one text in windows, and pair_column makes pairs; take truncate, head-tail or full"
            )
        if prompt.count("{pair}") > 1 or 0 <= prompt.find("{pair}") < prompt.find("{text}"):
            found.append(f"prompt must contain {{pair}} at most once and behind {{text}}, was {prompt!r}")
        if self.model.shots:
            found.append("shots show single texts in the prompt, and pair_column makes pairs; leave them out")
        if self.trust.out_of_scope is not None:
            found.append("out_of_scope is a file of single texts, and pair_column makes pairs; leave it out")
        return found

    @classmethod
    def from_options(cls, options: Mapping[str, Any], where: str = "options") -> RunConfig:
        """From flat option names to values; ConfigError names every unknown key and every value of the wrong kind at once."""
        problems: list[str] = []
        parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        for key, value in options.items():
            part = _part_of(key)
            if part is None:
                near = difflib.get_close_matches(key, _all_keys(), n=1)
                problems.append(f"{where}: unknown option {key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
                continue
            kind = get_type_hints(_PARTS[part])[key]
            value = os.fspath(value) if isinstance(value, os.PathLike) else value
            value = _as_float(value) if float in _kinds(kind) else value
            if not _fits(value, kind):
                problems.append(f"{where}: {key} must be {_describe(kind)}, was {value!r}")
                continue
            parts[part][key] = value
        if problems:
            raise ConfigError("\n".join(problems))
        return cls(**{part: _PARTS[part](**values) for part, values in parts.items()})

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
        """From a flat YAML file, with `overrides` (from the command line) on top."""
        import yaml

        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such configuration file") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
        if not isinstance(loaded, dict):
            raise ConfigError(f"{path}: expected 'option: value' lines, found {type(loaded).__name__}")
        named = {str(key).replace("-", "_"): value for key, value in loaded.items()}
        return cls.from_options({**cls.from_options(named, where=str(path)).to_options(), **(overrides or {})})

    def to_options(self) -> dict[str, Any]:
        """Flat: every option with its value."""
        return {key: value for part in _PARTS for key, value in dataclasses.asdict(getattr(self, part)).items()}

    def to_yaml(self) -> str:
        import yaml

        return str(yaml.safe_dump(self.to_options(), allow_unicode=True, sort_keys=False))

    def replace(self, **options: Any) -> RunConfig:
        """A copy with these flat options changed."""
        return RunConfig.from_options({**self.to_options(), **options})


_PARTS: dict[str, Any] = {"data": DataConfig, "model": ModelConfig, "optimization": OptimizationConfig, "trust": TrustConfig}


def _all_keys() -> list[str]:
    return [f.name for part in _PARTS.values() for f in dataclasses.fields(part)]


def _part_of(key: str) -> str | None:
    return next((name for name, part in _PARTS.items() if key in {f.name for f in dataclasses.fields(part)}), None)


def _kinds(kind: Any) -> tuple[Any, ...]:
    """The alternatives of an optional or literal annotation."""
    return (kind,) if get_origin(kind) is Literal or not get_args(kind) else get_args(kind)


def _as_float(value: Any) -> Any:
    """A number as float. YAML 1.1 reads 3e-4, without a dot, as a text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _fits(value: Any, kind: Any) -> bool:
    for one in _kinds(kind):
        if get_origin(one) is Literal:
            if isinstance(value, str) and value in get_args(one):
                return True
        elif one is float:
            if isinstance(value, float) and math.isfinite(value):
                return True
        elif one is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif isinstance(value, one):
            return True
    return False


def _describe(kind: Any) -> str:
    words = []
    for one in _kinds(kind):
        if get_origin(one) is Literal:
            words.append("one of " + ", ".join(get_args(one)))
        else:
            words.append({int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}[one])
    return " or ".join(words)
