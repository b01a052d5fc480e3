"""Which language models the generate method can score with: decoders of attention alone, with one projection over their states.

What is refused here would not fail. It would give other numbers than the model's own.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from fenlei.errors import ModelError

OTHERWISE = {
    "diffllama": "attends twice in each layer",
    "doge": "adds numbers of its own to the attention mask",
    "hrm_text": "goes through its layers several times",
    "hyperclovax": "scales its logits in a way of its own",
    "modernbert-decoder": "has more than a projection over its states",
}
"""Architectures that pass for others, by model_type, and what they do that shared_prefix.py or projection.py does not."""


def check_scorable(network: PreTrainedModel, folder: Path) -> None:
    """ModelError for encoders, for recurrent or chunked layers, and for attention or logits of an architecture's own."""
    config = network.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    reads = getattr(network.base_model, "language_model", network)  # of a model of texts and images, whose tower looks both ways
    causal = getattr(config, "is_causal", True) and all(getattr(module, "is_causal", True) for module in reads.modules())
    what = OTHERWISE.get(network.config.model_type)
    if kinds:
        what = f"has layers of kind {', '.join(sorted(kinds))}"
    elif not causal:
        what = "is no decoder"
    elif not network._supports_attention_backend:
        what = "has attention of its own"
    if what:
        raise ModelError(f"{folder}: {network.config.model_type} {what}, which the generate method cannot score with; use --method head")
