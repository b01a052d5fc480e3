"""A second objective for `nano`: the words of a line, read back from the state of its last token.

A language model's last state knows the next token; a classifier needs it to know what the whole text was about. Decoding the bag of words
from one state teaches it to gather the text there (RetroMAE, Xiao et al. 2022; DupMAE, Liu et al. 2023). The projection that reads
the words is thrown away after pretraining.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class BagOfWords(nn.Module):
    """Cross entropy between a line's words, rare ones weighing more, and the softmax of its last state against the embeddings."""

    def __init__(self, weights: torch.Tensor, width: int, eos_id: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.projection.weight)
        self.register_buffer("weights", weights)
        self._eos_id = eos_id

    @classmethod
    def for_stream(cls, stream: np.ndarray, vocabulary: int, width: int, eos_id: int) -> BagOfWords:
        """Each token weighs -log of its share of the stream; eos nothing."""
        counts = np.bincount(stream, minlength=vocabulary) + 1.0
        weights = torch.from_numpy(-np.log(counts / counts.sum())).float()
        weights[eos_id] = 0.0
        return cls(weights, width, eos_id)

    def forward(self, states: torch.Tensor, tokens: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """States (rows, length, width), tokens (rows, length) -> mean loss over the lines that end in them."""
        ends = tokens == self._eos_id
        line = torch.cumsum(ends, dim=1) - ends.long()  # an eos belongs to the line it closes
        per_row = int(line.max()) + 1
        line = line + torch.arange(len(tokens)).unsqueeze(1) * per_row
        words = torch.zeros(len(tokens) * per_row, len(self.weights))
        words.index_put_((line.flatten(), tokens.flatten()), self.weights[tokens.flatten()], accumulate=True)
        last = ends[:, 1:].nonzero(as_tuple=True)  # the token before each eos
        target = words[line[last[0], last[1]]]
        known = target.sum(dim=1) > 0
        target = target[known] / target[known].sum(dim=1, keepdim=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.projection(states[last[0], last[1]][known]) @ embeddings.T
        return -(target * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
