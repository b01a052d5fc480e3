"""What the generate method would score otherwise than the model itself is refused when it is loaded, not scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import SHAPE
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from fenlei.errors import ModelError
from fenlei.models.scorable import OTHERWISE, check_scorable


@pytest.mark.parametrize("kind", OTHERWISE)
def test_architectures_that_pass_for_others_are_known_by_name(kind: str) -> None:
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"{kind} came with a later transformers")
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=100, pad_token_id=0, **SHAPE))
    with pytest.raises(ModelError, match=rf"{kind} {OTHERWISE[kind]}, which the generate method cannot score with; use --method head"):
        check_scorable(network, Path("model"))


def test_a_decoder_that_was_made_to_look_both_ways_is_none(tiny_qwen: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    check_scorable(network, tiny_qwen)
    network.config.is_causal = False
    with pytest.raises(ModelError, match="qwen3 is no decoder"):
        check_scorable(network, tiny_qwen)
