"""GGUF files, llama.cpp's format, as base models: dequantised once into a stock folder, and from there on a model like any other.

The folder lies in the user's cache, named by all that the file holds. bfloat16 holds what the coarse steps of a quantised file have left.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

from fenlei.errors import ModelError, first_line
from fenlei.models.digest import digest_of

SUFFIX = ".gguf"


def cache_folder() -> Path:
    """`fenlei/gguf` in the user's cache; XDG_CACHE_HOME moves it. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fenlei" / "gguf"


def dequantized(file: Path) -> Path:
    """The stock folder of `file`, made where it is not there yet. ModelError where it cannot be read, or its architecture is unknown."""
    folder = cache_folder() / f"{file.stem}-{digest_of(file)[:16]}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{file}: GGUF files need the package gguf; install it with: pip install 'fenlei[gguf]'")
    from safetensors import SafetensorError  # how save_pretrained says that the disk is full

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as temporary:
            _convert(file, Path(temporary) / folder.name)
            os.replace(Path(temporary) / folder.name, folder)
    except (OSError, SafetensorError) as error:
        if folder.is_dir():  # another process was faster
            return folder
        raise ModelError(
            f"{file}: could not be dequantised into {folder} ({first_line(error)}); XDG_CACHE_HOME names a place with room"
        ) from error
    return folder


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        network: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    except (OSError, ValueError, KeyError, RuntimeError, IndexError, struct.error) as error:
        raise ModelError(
            f"{file}: could not be read as a GGUF model ({first_line(error)}); split files and architectures that transformers does not "
            "know are not taken, the model as *.safetensors is"
        ) from error
    # A plain model from here on: without the marks that forbid saving one that was quantised.
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.is_quantized, network.hf_quantizer = False, None
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
