"""The prompt and length rule: the text is shortened, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import LayoutLMv3Tokenizer, PreTrainedTokenizerFast

from fenlei.errors import ConfigError, ModelError
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


SPECIALS = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2}


def small_tokenizer(*pieces: str) -> PreTrainedTokenizerFast:
    """Knows `pieces` and nothing else: what it does not know, it drops."""
    bpe = Tokenizer(models.BPE(vocab=SPECIALS | {piece: place for place, piece in enumerate(pieces, start=3)}, merges=[]))
    bpe.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=list(SPECIALS.items()))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="[PAD]", name_or_path="some/model")


def test_a_tokenizer_without_latin_letters_keeps_its_special_tokens_around_the_text() -> None:
    """Asked about `a` alone, it shows [CLS][SEP] with nothing between: both seemed to come after the text."""
    encoder = TextEncoder(small_tokenizer("的", "国"), None, 8)
    assert encoder.encode(["国的"])[0].tolist() == [1, 4, 3, 2]


def test_a_tokenizer_that_knows_no_text_is_named() -> None:
    with pytest.raises(ModelError, match=r"some/model: its tokenizer \(\w+\) gives no token for any of a, 的"):
        TextEncoder(small_tokenizer("中"), None, 8)


def test_a_tokenizer_that_writes_a_text_otherwise_beside_special_tokens_is_named() -> None:
    class Otherwise(PreTrainedTokenizerFast):
        def __call__(self, text: Any, add_special_tokens: bool = True, **options: Any) -> Any:
            return super().__call__("的" if add_special_tokens else text, add_special_tokens=add_special_tokens, **options)

    tokenizer = Otherwise(tokenizer_object=small_tokenizer("a", "的").backend_tokenizer, pad_token="[PAD]", name_or_path="some/model")
    with pytest.raises(ModelError, match=r"gives 'a' the ids \[3\], and \[1, 4, 2\] once special tokens are added.*choose a model"):
        TextEncoder(tokenizer, None, 8)


def test_a_tokenizer_that_wants_more_than_a_text_is_named() -> None:
    vocabulary = {piece: place for place, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "Ġa"])}
    boxes_wanted = LayoutLMv3Tokenizer(vocab=vocabulary, merges=[], name_or_path="some/layout")
    with pytest.raises(ModelError, match=r"some/layout: its tokenizer \(LayoutLMv3\w*\) does not take a text alone \(.+\); choose a model"):
        TextEncoder(boxes_wanted, None, 8)


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
