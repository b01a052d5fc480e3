"""The models of bench.gpu as folders: SOURCE TARGET. A causal language model and a classifier of ten labels, for those who need one.

SOURCE has config and tokenizer, and weights or not: random ones are as fast. `half` is the shape of Qwen2.5-0.5B, `tiny` one for trying.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, Qwen2Config

from fenlei.models.hub import NANO, resolve_model

HALF = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151_936, "tie_word_embeddings": True}  # fmt: skip
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "vocab_size": 8192, "tie_word_embeddings": True}  # fmt: skip


def main() -> None:
    """Writes TARGET/causal and TARGET/classifier."""
    source, target, began = sys.argv[1], Path(sys.argv[2]), time.perf_counter()
    folder = resolve_model(NANO) if source in ("half", "tiny") else Path(source)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = Qwen2Config(**(HALF if source == "half" else TINY)) if source in ("half", "tiny") else AutoConfig.from_pretrained(folder)
    config.vocab_size = max(config.vocab_size, len(tokenizer))
    drawn = source in ("half", "tiny") or not any(folder.glob("*.safetensors"))
    for name, kind in (("causal", AutoModelForCausalLM), ("classifier", AutoModelForSequenceClassification)):
        if name == "classifier":
            config.num_labels, config.pad_token_id = 10, tokenizer.pad_token_id
        _network(kind, config, None if drawn else folder).save_pretrained(target / name)
        tokenizer.save_pretrained(target / name)
    print(json.dumps({"drawn": drawn, "seconds": round(time.perf_counter() - began, 1)}))


def _network(kind: Any, config: Any, folder: Path | None) -> Any:
    if folder is not None:
        return kind.from_pretrained(folder, config=config, dtype=torch.bfloat16)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return kind.from_config(config, dtype=torch.bfloat16)


if __name__ == "__main__":
    main()
