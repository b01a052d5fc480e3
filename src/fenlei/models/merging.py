"""Labels that are made up of several outputs of a head: their probabilities add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fenlei.errors import ArtifactError


@dataclass(frozen=True)
class Merging:
    """Which outputs make up each label, and the calibration that goes before: probabilities add where they mean what they say."""

    names: tuple[str, ...]
    """What the outputs were called when they were labels."""
    outputs: tuple[tuple[int, ...], ...]
    """For each label the outputs it is made up of."""
    scale: tuple[float, ...]
    """For each output: its logit times `scale` plus `bias` is calibrated."""
    bias: tuple[float, ...]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Merging:
        """From what `to_json` gave; ArtifactError for anything else."""
        try:
            outputs = tuple(tuple(int(one) for one in label) for label in stored["outputs"])
            found = cls(tuple(map(str, stored["names"])), outputs, tuple(map(float, stored["scale"])), tuple(map(float, stored["bias"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"merged: not what a run with merged labels says ({error}); restore fenlei.json") from error
        places = [one for label in outputs for one in label]
        if sorted(places) != list(range(len(found.names))) or not len(found.names) == len(found.scale) == len(found.bias):
            raise ArtifactError(f"merged: {len(found.names)} outputs do not make up the labels {outputs}; restore fenlei.json")
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """float32 (rows, outputs) -> (rows, labels), whose softmax adds the probabilities of each label's outputs."""
        calibrated = logits * torch.tensor(self.scale, device=logits.device) + torch.tensor(self.bias, device=logits.device)
        return added(calibrated, self.outputs)


def added(logits: torch.Tensor, parts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Columns of calibrated logits joined so that their probabilities add: (rows, labels) -> (rows, parts)."""
    return torch.stack([logits[:, list(part)].logsumexp(dim=1) for part in parts], dim=1)
