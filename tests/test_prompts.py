"""The prompt and length rule: the text is shortened, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fenlei.errors import ConfigError
from fenlei.models.backbone import load_tokenizer
from fenlei.text.prompts import PROMPTS, TextEncoder

TEXT = "国足热身赛两球取胜，主帅称赞年轻后卫"


def test_without_a_prompt_ids_are_the_tokenizers_own(tiny_qwen: Path, tiny_llama: Path, tiny_bert: Path) -> None:
    for folder in (tiny_qwen, tiny_llama, tiny_bert):
        tokenizer = load_tokenizer(folder)
        encoded = TextEncoder(tokenizer, None, 200).encode([TEXT, "短"])
        assert encoded[0].tolist() == tokenizer(TEXT)["input_ids"]
        assert encoded[1].tolist() == tokenizer("短")["input_ids"]


@pytest.mark.parametrize("extra", [-1, 0, 1, 5])
def test_at_the_limit_only_the_text_is_cut(tiny_bert: Path, extra: int) -> None:
    tokenizer = load_tokenizer(tiny_bert)
    whole = TextEncoder(tokenizer, "zh", 500).encode([TEXT])
    limit = len(whole[0]) - extra
    encoder = TextEncoder(tokenizer, "zh", limit)
    cut = encoder.encode([TEXT])
    assert len(cut[0]) == min(limit, len(whole[0]))
    assert cut.tokens_cut[0] == max(0, extra)
    tail = [*tokenizer(PROMPTS["zh"].partition("{text}")[2], add_special_tokens=False)["input_ids"], tokenizer.sep_token_id]
    assert cut[0].tolist()[-len(tail) :] == tail
    assert cut[0].tolist()[0] == tokenizer.cls_token_id


def test_no_room_for_the_text_is_refused(tiny_qwen: Path) -> None:
    with pytest.raises(ConfigError, match="leaves no room for the text"):
        TextEncoder(load_tokenizer(tiny_qwen), "zh", 3)


def test_an_empty_text_still_has_a_token_to_pool(tiny_qwen: Path) -> None:
    encoded = TextEncoder(load_tokenizer(tiny_qwen), None, 16).encode(["", "体育"])
    assert encoded.lengths.min() == 1


def test_many_chunks_equal_one(tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TextEncoder(load_tokenizer(tiny_qwen), None, 16)
    texts = [TEXT[:n] for n in range(1, 15)]
    whole = encoder.encode(texts)
    monkeypatch.setattr("fenlei.text.prompts.CHUNK_ROWS", 3)
    assert encoder.encode(texts).ids.tolist() == whole.ids.tolist()
