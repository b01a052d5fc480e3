"""An encoder without its backbone: what its head makes of the first token's state alone.

A frozen backbone says the same in every epoch, so what the head reads of it can be kept. Of most encoders (BERT, RoBERTa, DeBERTa, ERNIE)
that is the state of the first token. Their own forward pass is called with a backbone that says this state and nothing else: whatever
stands between backbone and answer stays the architecture's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


def first_states(network: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The state of the first token, float32 (rows, hidden)."""
    return cast(torch.Tensor, network.base_model(**inputs).last_hidden_state[:, 0].float())


def classify_first(network: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """The answer to rows of which `first_states` has said this, float32 (rows, labels)."""
    alone = torch.ones(len(states), 1, dtype=torch.int64, device=states.device)
    with _backbone_says(network.base_model, states.unsqueeze(1)):
        return cast(torch.Tensor, network(input_ids=alone, attention_mask=alone).logits.float())


@contextmanager
def _backbone_says(backbone: Any, states: torch.Tensor) -> Iterator[None]:
    """Within it the backbone says `states`, (rows, length, hidden), whatever it is given."""
    pooler = getattr(backbone, "pooler", None)
    said = BaseModelOutputWithPooling(last_hidden_state=cast(Any, states), pooler_output=None if pooler is None else pooler(states))
    before = vars(backbone).get("forward")
    backbone.forward = lambda *_given, **_named: said
    try:
        yield
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before
