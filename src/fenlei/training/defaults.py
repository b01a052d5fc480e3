"""What fenlei chooses where the user did not say, each choice with the reason that is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fenlei.config import Long, ModelConfig, OptimizationConfig, Tuning
from fenlei.config.model import ADAPTERS, DEFAULT_MAX_LENGTH
from fenlei.models.devices import SMALL_MODEL_PARAMETERS
from fenlei.text.windows import WINDOWED

LORA_FROM_PARAMETERS = 100_000_000
REFERENCE_PARAMETERS = 5e8
SOLVED_RATE = 1e-4
MANY_ROWS = 20_000
LEAST_STEPS = 700
"""Optimiser steps a run should have before few rows stop mattering for the number of epochs."""
FEW_STEPS, USUAL_BATCH, LEAST_BATCH, MOST_EPOCHS = 350, 32, 8, 12
USUAL_BATCH_TOKENS = 4096

WINDOW_LENGTH = 512
"""Tokens of a window: enough to say what it is about, few enough that several make a document."""
WORTH_READING = 0.1
"""Share of all tokens that truncation may leave unread before something is done about it."""


@dataclass(frozen=True)
class Choice:
    """A value and why it was taken."""

    name: str
    value: object
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.value}: {self.reason}"


def choose_tuning(config: ModelConfig, parameters: int) -> tuple[Tuning, Choice | None]:
    """Full for small models, LoRA for large ones."""
    if config.tuning is not None:
        return config.tuning, None
    tuning: Tuning = "lora" if parameters >= LORA_FROM_PARAMETERS else "full"
    size = f"{parameters / 1e6:,.0f} million parameters"
    return tuning, Choice("tuning", tuning, f"{size}, {'too many to move all' if tuning == 'lora' else 'few enough to train all'}")


def choose_learning_rate(
    config: OptimizationConfig, tuning: Tuning, parameters: int, batch_size: int, *, solved: bool = False
) -> tuple[float, Choice | None]:
    """By tuning and model size.

    Full: 2e-5 at 0.5 billion parameters, falling with size as practice has it (BERT-base 5e-5, 7B models 5e-6). LoRA: ten times and
    more, as its update is a small addition (Hu et al. 2021; Schulman et al. 2025, "LoRA without regret"). Both for steps of
    up to 32 rows; above, growing with their square root (Malladi et al. 2022, for Adam). `solved`: the head does not begin at random
    (training/solved_head.py), and larger steps would leave where it begins.
    """
    if config.learning_rate is not None:
        return config.learning_rate, None
    scale = REFERENCE_PARAMETERS / parameters
    rates = {"full": 2e-5 * scale**0.6, "lora": 3e-4 * scale**0.25, "frozen": SOLVED_RATE if solved else 1e-3}
    rate = rates["lora" if tuning == "qlora" else tuning]
    rate = float(f"{rate * max(1.0, math.sqrt(batch_size / USUAL_BATCH)):.1e}")
    why = f"{tuning} tuning of {parameters / 1e6:,.0f} million parameters, {batch_size} rows a step"
    return rate, Choice("learning_rate", f"{rate:g}", f"{why}, a head that does not begin at random" if solved else why)


def propose_prompt(config: ModelConfig, parameters: int, *, decodes: bool) -> str | None:
    """A line that proposes a prompt where a large decoder learns nothing and has none: its last state is of what would come next."""
    if not decodes or config.tuning != "frozen" or config.prompt is not None or parameters < LORA_FROM_PARAMETERS:
        return None
    return "frozen: a language model that is asked for the class says more of it than one that only reads: try --prompt zh, en or your own"


def choose_batch_size(config: OptimizationConfig, tuning: Tuning, parameters: int, rows: int) -> tuple[int, Choice | None]:
    """32 rows; more where a step is bound by its overhead and there are rows enough, fewer where adapters would learn in few steps.

    Full tuning of few rows keeps 32: in the one comparison that was made, with nano, smaller steps were less accurate.
    """
    if config.batch_size is not None:
        return config.batch_size, None
    if parameters < SMALL_MODEL_PARAMETERS and rows >= MANY_ROWS:
        return 128, Choice("batch_size", 128, "a small model and many rows: larger steps cost little more")
    size = USUAL_BATCH
    adapts = tuning in ADAPTERS and config.max_steps is None
    while adapts and size > LEAST_BATCH and rows * (config.epochs or MOST_EPOCHS) / size < FEW_STEPS:
        size //= 2
    if size == USUAL_BATCH:
        return size, None
    return size, Choice("batch_size", size, f"{rows:,} rows are few: smaller steps, and more of them")


def choose_epochs(config: OptimizationConfig, tuning: Tuning, batch_size: int, rows: int) -> tuple[float, Choice | None]:
    """Three passes over enough rows, more over few."""
    if config.epochs is not None or config.max_steps is not None:
        return config.epochs or 1.0, None
    if tuning == "frozen":
        return 10.0, Choice("epochs", 10, "only the head learns")
    needed = math.ceil(LEAST_STEPS * batch_size / rows)
    epochs = min(MOST_EPOCHS, max(3, needed))
    why = "enough rows" if epochs == 3 else f"{rows:,} rows are few; the epoch kept is chosen by macro F1"
    return float(epochs), Choice("epochs", epochs, why)


def choose_long(
    config: ModelConfig, lengths: Sequence[int], model_takes: int, *, prompt: int = 0, pairs: bool = False
) -> tuple[Long, Choice | None]:
    """What is read of long texts: all in windows (generate: beginning and end), where truncation would leave much unread.

    `lengths`: tokens of training texts; `prompt`: those that stand beside each. Of `pairs` the beginnings are read, however much that
    leaves.
    """
    if config.long is not None:
        return config.long, None
    room = max(1, min(config.max_length or DEFAULT_MAX_LENGTH, model_takes) - prompt)
    longer = sum(length > room for length in lengths) / len(lengths)
    unread = sum(max(0, length - room) for length in lengths) / max(1, sum(lengths))
    beside = f" (the prompt takes {prompt:,} more)" if prompt else ""
    found = f"{longer:.0%} of the training texts are longer than {room:,} tokens{beside}, and {unread:.0%} of all tokens lie beyond"
    if not longer:
        return "truncate", None
    if pairs:
        return "truncate", Choice("long", "truncate", f"{found}: of a pair the longer text is shortened first")
    if unread < WORTH_READING:
        return "truncate", Choice("long", "truncate", found)
    if config.method == "generate":
        return "head-tail", Choice("long", "head-tail", f"{found}: beginning and end are read; --long windows reads all, and takes longer")
    return "windows", Choice("long", "windows", f"{found}: all is read, in windows; --long truncate is faster")


def choose_max_length(config: ModelConfig, model_takes: int) -> tuple[int, Choice | None]:
    """What was asked for, within what the model takes."""
    if config.max_length is not None:
        if config.max_length <= model_takes:
            return config.max_length, None
        return model_takes, Choice("max_length", model_takes, f"all that the model takes, {config.max_length} were asked for")
    if config.long == "full":
        return model_takes, Choice("max_length", model_takes, "tokens, all that the model takes")
    if config.long in WINDOWED:
        length = min(WINDOW_LENGTH, model_takes)
        return length, Choice("max_length", length, "tokens of a window; longer texts are read in several")
    length = min(DEFAULT_MAX_LENGTH, model_takes)
    return length, Choice("max_length", length, "tokens; longer texts are shortened and counted")
