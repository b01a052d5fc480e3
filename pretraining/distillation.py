"""A third objective for `nano`: a bigger model's view of a line, read off the state of its last token.

A classifier of few rows can only use distinctions that its backbone already makes. The teacher (teacher.py) makes them from three orders of
magnitude more text; a linear map of nano's state is pulled towards the teacher's vector of the same line (sentence-level distillation:
Reimers & Gurevych 2020). The map is thrown away after pretraining.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn


def taught_pieces(data: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The numbers of the pieces that the teacher has seen and its vectors, (pieces, dimensions); None where there are none."""
    paths = sorted((data / "teacher").glob("[0-9]*.npz"))
    if not paths:
        return None
    files = [np.load(path) for path in paths]
    return np.concatenate([file["pieces"] for file in files]), np.concatenate([file["vectors"] for file in files])


class Distillation(nn.Module):
    """Mean squared error between the teacher's vectors and a linear map of the lines' last states."""

    def __init__(self, vectors: np.ndarray, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, vectors.shape[1])
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.register_buffer("vectors", torch.from_numpy(vectors))

    def forward(self, last: torch.Tensor, line_numbers: torch.Tensor) -> torch.Tensor:
        """Last states (rows, width), and which of the vectors are those lines' (rows,) -> mean loss."""
        return torch.nn.functional.mse_loss(self.map(last.float()), self.vectors[line_numbers].float())
