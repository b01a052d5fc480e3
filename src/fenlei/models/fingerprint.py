"""Which weights a folder holds: told by a sample of them, or by every byte.

The sample is every tensor's name, type and shape, and one slice from its middle: 20 ms for half a billion parameters. A training of whole
matrices leaves not one of those slices as it was; one that moves single rows alone (of added tokens, PEFT's trainable_token_indices) may
leave all. What was computed from weights is therefore named by every byte (digest.py).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fenlei.errors import ModelError
from fenlei.models.digest import digest_of
from fenlei.models.hub import weight_files


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 over the sampled weights of `folder`: the same for every copy of a model. ModelError where a file cannot be read."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for key in sorted(file.keys()):
                    digest.update(_sample(key, file.get_slice(key), file))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read ({error}); fetch the model again") from error
    return digest.hexdigest()


def weights_digest(folder: Path) -> str:
    """SHA-256 over all that the weight files of `folder` hold. ModelError where one cannot be read."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        try:
            digest.update(digest_of(path).encode())
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error}); fetch the model again") from error
    return digest.hexdigest()


def _sample(key: str, stored: Any, file: Any) -> bytes:
    shape = stored.get_shape()
    middle = stored[shape[0] // 2 : shape[0] // 2 + 1] if len(shape) > 1 else file.get_tensor(key)
    content: bytes = middle.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{key} {stored.get_dtype()} {shape} ".encode() + content
