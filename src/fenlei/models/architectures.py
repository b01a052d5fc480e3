"""A classifier for every decoder: the one that transformers has, else one of the same make over its backbone.

Transformers builds its own as one linear, `score`, over the bare backbone. For a few decoders (InternLM3, ERNIE 4.5, Granite, GLM-4 MoE) it
has the backbone and no such class; nothing of the architecture is missing, so it is put together here.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification


def has_stock_classifier(config: Any) -> bool:
    """Whether `AutoModelForSequenceClassification` opens a model of this configuration."""
    return type(config) in AutoModelForSequenceClassification._model_mapping


def classifier_class(config: Any) -> Any:
    """What has the `from_pretrained` of a classifier with this configuration: stock where there is one, and where no other can be made."""
    writer: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if has_stock_classifier(config) or writer is None:
        return AutoModelForSequenceClassification
    family = next(base for base in writer.__mro__ if issubclass(base, PreTrainedModel) and not hasattr(base, "generate"))
    name = type(config).__name__.removesuffix("Config") + "ForSequenceClassification"
    return type(name, (GenericForSequenceClassification, family), {"__module__": __name__, "config_class": type(config)})


def empty_classifier(config: Any) -> PreTrainedModel:
    """A classifier with this configuration on the meta device, without weights; ValueError where none can be made."""
    kind = classifier_class(config)
    with torch.device("meta"):
        network: PreTrainedModel = (getattr(kind, "from_config", None) or kind._from_config)(config)
    return network
