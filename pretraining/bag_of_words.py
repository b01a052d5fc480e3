"""A second objective for `nano`: the words of a line, read back from the state of its last token.

A language model's last state knows the next token; a classifier needs it to know what the whole text was about. Decoding the bag of words
from one state teaches it to gather the text there (RetroMAE, Xiao et al. 2022; DupMAE, Liu et al. 2023). The projection that reads
the words is thrown away after pretraining.
"""

from __future__ import annotations

import numpy as np
import torch
from batches import Rows
from torch import nn


class BagOfWords(nn.Module):
    """Cross entropy between a line's words, rare ones weighing more, and the softmax of its last state against the embeddings."""

    def __init__(self, weights: torch.Tensor, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.projection.weight)
        self.register_buffer("weights", weights)

    @classmethod
    def for_stream(cls, stream: np.ndarray, vocabulary: int, width: int) -> BagOfWords:
        """Each token weighs -log of its share of the stream."""
        counts = np.bincount(stream, minlength=vocabulary) + 1.0
        return cls(torch.from_numpy(-np.log(counts / counts.sum())).float(), width)

    def forward(self, last: torch.Tensor, lines: Rows, embeddings: torch.Tensor) -> torch.Tensor:
        """Last states (rows, width) of the lines -> mean loss."""
        weights = self.weights[lines.tokens] * lines.real()
        target = torch.zeros(len(last), len(self.weights), device=last.device).scatter_add_(1, lines.tokens, weights)
        target = target / target.sum(dim=1, keepdim=True)
        with torch.autocast(last.device.type, torch.bfloat16):
            logits = self.projection(last) @ embeddings.T
        return -(target * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
