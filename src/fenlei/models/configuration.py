"""A model folder's config.json: what it says, and which models are not taken for what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from fenlei.errors import ModelError, first_line

UNLIMITED = 1_000_000

POSITIONS_AFTER_PAD = (
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "longformer", "mpnet", "ibert",
)  # fmt: skip
"""RoBERTa and its kin number positions from pad_token_id + 1: two of them are never used."""

READ_PADDING = ("canine", "convbert", "fnet", "funnel", "nystromformer", "xlnet")
"""Encoders that convolve, pool or transform a row with its padding, whatever the mask says, or whose head reads the row's last place."""

TURNED_BACK = ("fp8", "mxfp4")
"""Formats that transformers turns back into bfloat16 (DeepSeek-V3, GPT-OSS). It does so by itself where no GPU computes in them, and where
one does, weights would be kept in which nothing learns."""
BITSANDBYTES = "bitsandbytes"
"""Of bases in 4 bits, which --tuning qlora takes where that package is installed."""


def load_config(folder: Path) -> Any:
    """The folder's transformers configuration; ModelError where there is none that can be read, or for a model that is not taken."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: " + refusal(error, f"its config.json could not be read ({first_line(error)})")) from error
    if config.model_type in READ_PADDING:
        raise ModelError(
            f"{folder}: {config.model_type} reads the padding beside a text, and would answer by the rows beside it; take another model"
        )
    _turn_back(config, folder)
    return config


def refusal(error: Exception, otherwise: str) -> str:
    """What to say of a model that transformers does not open: `otherwise`, unless it was asked to run code that the model brings along."""
    if "custom code" not in str(error):
        return otherwise
    return (
        "needs code of its own (trust_remote_code), which fenlei never runs; take it in a form that transformers itself knows "
        "(docs/families.md; its name often ends in -hf), or another model"
    )


def longest_input(config: Any) -> int:
    """Tokens the model takes; of longrope (Phi-3 128k, Phi-4-mini) those before its factors change: they do so for all rows of a batch."""
    text_config = config.get_text_config()
    limit = int(getattr(text_config, "max_position_embeddings", None) or 0)
    if limit < 1:  # none, or -1 for "any length"
        return UNLIMITED
    rope = getattr(text_config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        limit = min(limit, int(rope["original_max_position_embeddings"]))
    return limit - 2 if text_config.model_type in POSITIONS_AFTER_PAD else limit


def _turn_back(config: Any, folder: Path) -> None:
    """Has quantised weights turned back when they are loaded; ModelError for formats that are not."""
    told = getattr(config, "quantization_config", None) or getattr(config.get_text_config(), "quantization_config", None) or {}
    method = told.get("quant_method", BITSANDBYTES)
    if method in TURNED_BACK:
        told["dequantize"] = True
    elif method != BITSANDBYTES:
        raise ModelError(
            f"{folder}: its weights are quantised already ({method}), in which fenlei neither trains nor predicts; give the "
            "model that they were made from, with --tuning qlora where memory is short, or a GGUF file"
        )
