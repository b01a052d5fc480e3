"""What `nano` is trained for: the next token, the words of each line, and, where there are vectors of a teacher, those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from bag_of_words import BagOfWords
from distillation import Distillation, Teacher
from torch import nn
from transformers import Qwen3ForCausalLM

SHARES = {"loss": 1.0, "words": 0.3, "teacher": 3.0}
"""Weight of each loss in their sum."""


class Objectives(nn.Module):
    """The losses beside the network, and what they learn that is thrown away afterwards."""

    def __init__(self, bag: BagOfWords, distillation: Distillation | None) -> None:
        super().__init__()
        self.bag = bag
        if distillation is not None:
            self.distillation = distillation

    @classmethod
    def for_stream(cls, work: Path, vocabulary: int, width: int, eos_id: int) -> Objectives:
        """Those that the work folder has data for."""
        stream = np.load(work / "train.npy")
        teacher = Teacher(work, stream, eos_id) if (work / "teacher").exists() else None
        return cls(
            BagOfWords.for_stream(stream, vocabulary, width, eos_id), Distillation(teacher, width, eos_id) if teacher is not None else None
        )

    @property
    def teacher(self) -> Teacher | None:
        return self.distillation.teacher if hasattr(self, "distillation") else None

    def forward(self, model: Qwen3ForCausalLM, tokens: torch.Tensor, taught_from: torch.Tensor) -> dict[str, torch.Tensor]:
        """Tokens (rows, length), and where in the teacher's stream each of the last rows begins -> each loss by its name in SHARES."""
        with torch.autocast("cpu", torch.bfloat16):
            states = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        losses = {"loss": next_token_loss(model, states, tokens), "words": self.bag(states, tokens, model.get_input_embeddings().weight)}
        if hasattr(self, "distillation"):
            taught = len(taught_from)
            losses["teacher"] = self.distillation(states[-taught:], tokens[-taught:], taught_from)
        return losses


def next_token_loss(model: Qwen3ForCausalLM, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens, in nats."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.lm_head(states[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, stream: np.ndarray, sequence: int, batch: int) -> float:
    """Mean next-token loss in nats a token over whole sequences of the stream."""
    windows = torch.from_numpy(stream[: len(stream) // sequence * sequence].astype(np.int64)).view(-1, sequence)
    model.eval()
    total = 0.0
    for part in windows.split(batch):
        with torch.autocast("cpu", torch.bfloat16):
            states = model.model(input_ids=part, use_cache=False).last_hidden_state
        total += next_token_loss(model, states, part).item() * len(part)
    model.train()
    return total / len(windows)
