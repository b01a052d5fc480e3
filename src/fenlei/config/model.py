"""Which network a run has, and which part of it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["head", "generate"]
Tuning = Literal["full", "lora", "qlora", "frozen", "none"]
Objective = Literal["labels", "tokens"]
HeadKind = Literal["linear", "mlp"]
Long = Literal["truncate", "head-tail", "full", "windows", "mean", "max"]
Source = Literal["auto", "huggingface", "modelscope"]

ADAPTERS: tuple[Tuning, ...] = ("lora", "qlora")
"""Tunings that learn adapters, and leave the weights below them as they are."""

DEFAULT_MAX_LENGTH = 1024
"""Tokens that are read of a text where nothing else is said, and the model takes as many."""


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and which part of it learns."""

    model: str | None = None
    """A local folder, a GGUF file, `nano`, or a Hugging Face or ModelScope id."""
    revision: str | None = None
    """Branch, tag or commit of a model on a hub. None: the default branch."""
    source: Source = "auto"
    """The hub to look on; `auto`: Hugging Face, then ModelScope."""
    method: Method = "head"
    """How the model answers: by a new layer of its own (`head`), or by the language model's probability of each label (`generate`)."""
    tuning: Tuning | None = None
    """None: full below 100 million parameters, else lora."""
    objective: Objective = "labels"
    """Generate: what the loss is normalised over. `labels`: the label set, as scores are; `tokens`: the vocabulary, token by token."""
    shots: int = 0
    """Generate: training rows shown in the prompt, the classes in turn; they are not trained on."""
    prior_correction: bool | None = None
    """Generate: take off what each label scores on an empty text. None: where nothing is tuned."""
    head: HeadKind = "linear"
    """The network on top of the backbone: one linear layer, or two with an activation between (`mlp`)."""
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
    """Rank of the adapters: how many directions they add to each weight."""
    lora_alpha: int = 32
    """Scale of the adapters: their output is multiplied by lora_alpha / lora_rank."""
    lora_dropout: float = 0.0
    """Dropout before the adapters, in training."""
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
