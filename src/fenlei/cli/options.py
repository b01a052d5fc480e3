"""Every field of a run's configuration as an option of the command line.

The fields, their kinds and their defaults are those of fenlei.config; here are only the words and the short names.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer

from fenlei.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrustConfig

PANELS: dict[str, Any] = {
    "Data options": DataConfig,
    "Model options": ModelConfig,
    "Training options": OptimizationConfig,
    "Trust options": TrustConfig,
}

DATA = typer.Argument(
    metavar="DATA",
    help="Labelled file, a folder of train, dev and test, or a data set on a hub: hf:OWNER/NAME, modelscope:OWNER/NAME.",
)
"""The rows to learn from, of every command that trains on them."""

HELP = {
    "text_column": "Column of the text; 'title,body' joins two.",
    "pair_column": "Column of the second text, where rows are pairs (NLI, paraphrase, question and answer).",
    "label_column": "Column of the label.",
    "multi_label": "Any number of labels a row, none included.",
    "label_separator": "Multi-label: what joins a row's labels in one string, as ',' or '|'.",
    "level_separator": "Hierarchy: what joins the levels of a label's name, as '##' in 科技##手机.",
    "class_file": "File of class names, one a line: their order, and names for ids in the data.",
    "dev": "Labelled file to select the checkpoint on and to calibrate with.",
    "dev_ratio": "Share of the training rows set aside for dev where no --dev is given.",
    "test": "Labelled file that nothing is learned from or chosen by; `fenlei train` measures it once, at its end.",
    "test_ratio": "Share of the training rows set aside for test.",
    "max_train_rows": "Train on so many of the training rows, each class giving its share.",
    "store_exemplars": "Keep N training rows of each class in the run, texts and all, so that `fenlei extend` needs no --replay.",
    "model": "A local folder, a GGUF file, `nano` (built in, Chinese), or a Hugging Face or ModelScope id. Required, here or in --config.",
    "revision": "Branch, tag or commit of a model on a hub.",
    "source": "The hub to look on.",
    "method": "How the model answers: by a head of its own, or by the language model's probability of each label.",
    "tuning": "What learns: all, adapters (qlora: over 4-bit weights, on CUDA), the head (frozen), or nothing.",
    "objective": "With --method generate: compare the answer with the other labels (labels), or with the whole vocabulary, "
    "token by token (tokens).",
    "shots": "generate: training rows shown in the prompt.",
    "prior_correction": "generate: take off what labels score on an empty text.",
    "head": "Network on top of the backbone.",
    "layers": "Keep the lower N blocks only: faster, less exact.",
    "prompt": "`zh`, `en` or a template with {text}; without it a head reads the bare text, generate a prompt in the labels' language.",
    "max_length": "Tokens of an input.",
    "long": "Longer texts: cut at their end, in their middle (head-tail), read at once (full), or in windows.",
    "lora_rank": "Rank of the adapters.",
    "lora_alpha": "Scale of the adapters.",
    "lora_dropout": "Dropout before the adapters, in training.",
    "lora_targets": "Modules that get adapters: `all-linear`, or names joined by commas.",
    "epochs": "Passes over the training rows.",
    "max_steps": "Optimiser steps; wins over --epochs.",
    "learning_rate": "Peak learning rate.",
    "batch_size": "Rows an optimiser step.",
    "batch_tokens": "Tokens through the network at once: memory and speed, not the result.",
    "memory": "Memory limit for training, for example 6GB. To stay below it, fenlei lowers --batch-tokens, then turns on "
    "--gradient-checkpointing.",
    "int8": "lora, frozen: multiply by the weights that do not learn in 8-bit integers; faster on x86 CPUs, most with VNNI.",
    "warmup_ratio": "Share of the steps in which the learning rate rises.",
    "weight_decay": "Weight decay of AdamW.",
    "max_grad_norm": "Gradients are clipped to this norm.",
    "label_smoothing": "Share of each label given to all classes.",
    "imbalance": "Uneven classes: weigh rows, discount sure ones, adjust logits by the prior, or draw classes alike.",
    "gradient_checkpointing": "Less memory, more time.",
    "evals_per_epoch": "Evaluations an epoch.",
    "early_stopping_patience": "Stop after N evaluations without a better macro F1 (multi-label: micro F1); "
    "0 (in a file or Python: null, None): never.",
    "seed": "Two runs with one seed are equal.",
    "device": "Where to compute.",
    "report_to": "Experiment trackers joined by commas: tensorboard, wandb, swanlab, mlflow.",
    "baseline": "Fit a TF-IDF baseline on the same rows, to compare with.",
    "min_confidence": "Mark rows below this confidence as abstained.",
    "target_accuracy": "Find the least confidence from which answers are right this often (95 % assured); an error if there is none.",
    "set_coverage": "Add prediction sets that hold the right label this often.",
    "set_score": "lac: the smallest sets, maybe empty; aps, raps: never empty.",
    "set_by_class": "Keep the coverage of sets for the rows of each class.",
    "out_of_scope": "File of texts that belong to no class. The novelty score that separates them best from known texts is used "
    "(without it: energy).",
}
"""What each option is for. `data` is an argument, not an option."""

CHOSEN = {
    "multi_label": "where a row lists several",
    "label_separator": "they are lists",
    "dev_ratio": "0.15",
    "test_ratio": "none",
    "tuning": "lora from 100 million parameters, else full",
    "prior_correction": "where nothing is tuned",
    "max_length": "1024, of a window 512, or what the model takes",
    "long": "by the lengths",
    "epochs": "by tuning and their number",
    "learning_rate": "by tuning and size",
    "batch_size": "32, fewer for LoRA on few rows, 128 for a small model from 20,000 rows",
    "batch_tokens": "4096, on a GPU what fits, up to 16384",
    "early_stopping_patience": "never",
}
"""The default in words, where that of the field is None."""

SHORT_NAMES = {"learning_rate": ["--lr"], "model": ["--model-name-or-path"]}
"""Other names that people expect."""

NEVER_BY_ZERO = frozenset({"early_stopping_patience"})
"""Where None means never, and the command line says it with 0."""


def with_run_options(
    command: Callable[..., None], names: Collection[str] = HELP, defaults: Mapping[str, str] = CHOSEN
) -> Callable[..., None]:
    """`command` with an option for every field of RunConfig, or for those of `names`; what the user gave reaches it as `options`.

    `defaults`: in words, those that are not the value of the field.
    """

    def call(**given: Any) -> None:
        values = {name: given.pop(name) for name in names}
        options = {name: None if name in NEVER_BY_ZERO and value == 0 else value for name, value in values.items() if value is not None}
        command(**given, options=options)

    own = inspect.signature(command, eval_str=True).parameters
    parameters = [*(one for one in own.values() if one.name != "options"), *_parameters(names, defaults)]
    call.__name__, call.__doc__, call.__module__ = command.__name__, command.__doc__, command.__module__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def config_of(data: str | None, config: Path | None, options: dict[str, Any]) -> RunConfig:
    """The run that the command line asks for, with the file `config` below it; BadParameter where that file is given as the data."""
    if data is not None and data.lower().endswith((".yaml", ".yml")):
        raise typer.BadParameter(f"{data} is no labelled file; a file of options goes with --config", param_hint="DATA")
    if data is not None:
        options = {**options, "data": data}
    return RunConfig.from_options(options) if config is None else RunConfig.from_yaml(config, options)


def _parameters(names: Collection[str], defaults: Mapping[str, str]) -> list[inspect.Parameter]:
    """One option a field; None, which the user cannot say, stands for 'not given'."""
    parameters = []
    for panel, part in PANELS.items():
        kinds = get_type_hints(part)
        asked = [one for one in dataclasses.fields(part) if one.name in names]
        parameters += [_parameter(one.name, kinds[one.name], defaults.get(one.name, one.default), panel) for one in asked]
    return parameters


def _parameter(name: str, kind: Any, default: Any, panel: str) -> inspect.Parameter:
    dashed = name.replace("_", "-")
    flag = f"--{dashed}/--no-{dashed}" if kind in (bool, Optional[bool]) else f"--{dashed}"  # noqa: UP045
    words = HELP[name] + _default(default)
    option = typer.Option(flag, *SHORT_NAMES.get(name, []), help=words, show_default=False, rich_help_panel=panel)
    annotation = Annotated[Optional[kind], option]  # noqa: UP045 - `kind` is a value, no name
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _default(value: Any) -> str:
    if value is None:
        return ""
    return f" (default: {('yes' if value else 'no') if isinstance(value, bool) else value})"
