"""What `nano` is trained for: the next token, the words of each line, its neighbour, and, where there are a teacher's vectors, those."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from bag_of_words import BagOfWords
from batches import Batch, Rows
from contrast import Contrast
from distillation import Distillation
from torch import nn
from transformers import Qwen3ForCausalLM

SHARES = {"loss": 1.0, "alone": 0.3, "words": 0.3, "pairs": 0.3, "teacher": 3.0}
"""Weight of each loss in their sum. `loss` is the next token's in the running stream, `alone` in lines that begin a row."""
OF_LINES = ("alone", "words", "teacher")


class Objectives(nn.Module):
    """The losses beside the network, and what they learn that is thrown away afterwards. A share of 0 leaves an objective out."""

    def __init__(
        self, stream: np.ndarray, vectors: np.ndarray | None, vocabulary: int, width: int, shares: dict[str, float] = SHARES
    ) -> None:
        super().__init__()
        self.shares = {name: share for name, share in shares.items() if share and (name != "teacher" or vectors is not None)}
        if "words" in self.shares:
            self.bag = BagOfWords.for_stream(stream, vocabulary, width)
        if "pairs" in self.shares:
            self.contrast = Contrast(width)
        if "teacher" in self.shares and vectors is not None:
            self.distillation = Distillation(vectors, width)

    def add_gradients(self, model: Qwen3ForCausalLM, batch: Batch) -> dict[str, torch.Tensor]:
        """Adds the gradients of the weighted sum, one forward pass after the other so that only one's states are held at a time.

        Returns each loss by its name in SHARES.
        """
        found = {}
        for losses in self(model, batch):
            torch.stack([self.shares[name] * loss for name, loss in losses.items()]).sum().backward()
            found |= {name: loss.detach() for name, loss in losses.items()}
        return found

    def forward(self, model: Qwen3ForCausalLM, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
        """The losses of one forward pass at a time."""
        if "loss" in self.shares:
            yield {"loss": next_token_loss(model, states_of(model, batch.windows), batch.windows)}
        if any(name in self.shares for name in OF_LINES):
            yield self._of_lines(model, batch)
        if "pairs" in self.shares:
            yield {"pairs": self.contrast(batch.pairs.last(states_of_texts(model, batch.pairs)), batch.documents)}

    def _of_lines(self, model: Qwen3ForCausalLM, batch: Batch) -> dict[str, torch.Tensor]:
        losses, lines = {}, batch.lines
        states = states_of_texts(model, lines)
        last = lines.last(states)
        if "alone" in self.shares:
            losses["alone"] = next_token_loss(model, states, lines)
        if "words" in self.shares:
            losses["words"] = self.bag(last, lines, model.get_input_embeddings().weight)
        if "teacher" in self.shares:
            losses["teacher"] = self.distillation(last, batch.line_numbers)
        return losses


def states_of(model: Qwen3ForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """The last states, (rows, length, width). No mask: in a causal network what is padded on the right reaches no real token."""
    with torch.autocast(tokens.device.type, torch.bfloat16):
        # a mask that was left out would be looked for in the positions, which makes the CPU wait for a GPU
        return model.model(input_ids=tokens, attention_mask={"full_attention": None}, use_cache=False).last_hidden_state


def states_of_texts(model: Qwen3ForCausalLM, texts: Rows) -> torch.Tensor:
    """The last states, (rows, length, width), each text behind the token that stands between documents, as fenlei lets a text begin."""
    first = texts.tokens.new_full((len(texts.tokens), 1), model.config.eos_token_id)
    return states_of(model, torch.cat([first, texts.tokens], dim=1))[:, 1:]


def next_token_loss(model: Qwen3ForCausalLM, states: torch.Tensor, text: torch.Tensor | Rows) -> torch.Tensor:
    """Mean over the tokens, in nats; over the real ones, where there is padding."""
    tokens = text.tokens if isinstance(text, Rows) else text
    targets = tokens.masked_fill(~text.real(), -100) if isinstance(text, Rows) else tokens
    with torch.autocast(tokens.device.type, torch.bfloat16):
        logits = model.lm_head(states[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, stream: np.ndarray, sequence: int, rows: int) -> float:
    """Mean next-token loss in nats a token over whole sequences of the stream."""
    windows = torch.from_numpy(stream[: len(stream) // sequence * sequence].astype(np.int64)).view(-1, sequence).to(model.device)
    model.eval()
    total = 0.0
    for part in windows.split(rows):
        total += next_token_loss(model, states_of(model, part), part).item() * len(part)
    model.train()
    return total / len(windows)
