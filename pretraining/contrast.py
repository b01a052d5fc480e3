"""A fourth objective for `nano`, which needs no teacher: two pieces of one text are known by each other among those of other texts.

Neighbouring pieces of a document, or the two halves of a headline, share a topic and few words; finding the partner by the state of
the last token teaches that state the topic (Contriever, Izacard et al. 2022; InfoNCE, van den Oord et al. 2018). The projection
in which they are compared is thrown away after pretraining (SimCLR, Chen et al. 2020).
"""

from __future__ import annotations

import torch
from torch import nn

TEMPERATURE = 0.07


class Contrast(nn.Module):
    """Cross entropy of picking a piece's partner by cosine, both ways."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.projection.weight)

    def forward(self, last: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """Last states (2 * pairs, width), partners half of the rows apart, and the pairs' documents (pairs,) -> mean loss.

        Other pairs of the same document are neither right nor wrong: they are left out.
        """
        first, second = torch.nn.functional.normalize(self.projection(last.float()), dim=1).chunk(2)
        likeness = first @ second.T / TEMPERATURE
        kin = (documents.unsqueeze(0) == documents.unsqueeze(1)).fill_diagonal_(False)
        likeness = likeness.masked_fill(kin, float("-inf"))
        right = torch.arange(len(first), device=last.device)
        return (nn.functional.cross_entropy(likeness, right) + nn.functional.cross_entropy(likeness.T, right)) / 2
