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


class Teacher:
    """The lines that have a teacher's vector, as a token stream of their own, and the vectors, standardised."""

    def __init__(self, work: Path, stream: np.ndarray, eos_id: int) -> None:
        files = [np.load(path) for path in sorted((work / "teacher").glob("*.npz"))]
        vectors = torch.from_numpy(np.concatenate([file["vectors"] for file in files])).float()
        self.vectors = (vectors - vectors.mean(dim=0)) / vectors.std(dim=0).clamp_min(1e-6)
        ends = np.flatnonzero(stream == eos_id)
        begins = np.concatenate([[0], ends[:-1] + 1])
        lines = np.concatenate([file["lines"] for file in files])
        self.stream = np.concatenate([stream[begins[line] : ends[line] + 1] for line in lines])
        self._closed = torch.from_numpy(np.cumsum(self.stream == eos_id))

    def vectors_at(self, positions: torch.Tensor) -> torch.Tensor:
        """The vectors of the lines that are closed by an eos at these positions of the stream."""
        return self.vectors[self._closed[positions] - 1]


class Distillation(nn.Module):
    """Mean squared error between the teacher's standardised vectors and a linear map of the lines' last states."""

    def __init__(self, teacher: Teacher, width: int, eos_id: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, teacher.vectors.shape[1])
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.teacher, self._eos_id = teacher, eos_id

    def forward(self, states: torch.Tensor, tokens: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """States (rows, length, width), tokens (rows, length) of the teacher's stream, where in it each row begins (rows,) -> mean loss.

        A row's first line may have begun before the row: it is left out.
        """
        ends = tokens == self._eos_id
        row, column = (ends & (torch.cumsum(ends, dim=1) > 1)).nonzero(as_tuple=True)
        if not len(row):  # the mean of no errors would be NaN
            return states.sum() * 0.0
        given = self.map(states[row, column - 1].float())
        return torch.nn.functional.mse_loss(given, self.teacher.vectors_at(starts[row] + column))
