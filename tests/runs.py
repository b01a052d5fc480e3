"""What tests compare runs by: what they hold, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from fenlei.inference.classifier import Classifier


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return {file.name + key: value for file in sorted((run / "model").glob("*.safetensors")) for key, value in load_file(file).items()}


def logits(run: Path, rows: Sequence[dict[str, str]]) -> np.ndarray:
    return Classifier.load(run, device="cpu").logits([row["text"] for row in rows]).logits
