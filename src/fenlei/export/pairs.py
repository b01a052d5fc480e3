"""Runs on pairs in a stock folder: its tokenizer writes a pair as the run reads it.

That of an encoder does so already. To that of a decoder, which puts nothing between two texts, the line break is given, so that
`pipeline({"text": first, "text_pair": second})` and `tokenizer(first, second)` read what the run reads, and shorten the longer text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from fenlei.errors import ConfigError
from fenlei.export.prompted import template
from fenlei.export.sample_texts import sample_texts
from fenlei.text.pair_encoder import PairEncoder, PairForm
from fenlei.text.pairs import Pair, Text
from fenlei.text.prompts import special_ids


def sample_pairs(tokenizer: PreTrainedTokenizerBase, count: int) -> list[Text]:
    """`count` pairs of texts of 1 to 24 tokens, always the same."""
    texts = sample_texts(tokenizer, count)
    return list(zip(texts, reversed(texts), strict=True))


def teach_pairs(tokenizer: PreTrainedTokenizerBase, encoder: PairEncoder) -> list[str]:
    """Has the tokenizer write pairs as the encoder does; a note where that took something.

    ConfigError where it cannot be told to, being no fast one.
    """
    if _writes_alike(tokenizer, encoder):
        return []
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            f"the tokenizer ({type(tokenizer).__name__}) puts nothing between two texts and cannot be told to; use the run itself"
        )
    backend.post_processor = _template(tokenizer, encoder.form)
    between = tokenizer.decode(encoder.form.between)
    return [
        f"the folder's tokenizer was told to put {between!r} between two texts, as the run does: give pairs as "
        '{"text": ..., "text_pair": ...}, not joined by yourself'
    ]


def filled(prompt: str, text: Text) -> Text:
    """What a stock folder is to be given for a text, or for a pair of a run with this prompt."""
    if prompt == "{text}" or isinstance(text, str):
        return text
    first, second = text
    before, _, after = prompt.partition("{text}")
    return before + first + after.replace("{pair}", second)


def columns(texts: Sequence[Text]) -> tuple[list[str], ...]:
    """The arguments with which a tokenizer is called for these texts: one list, or two for pairs."""
    pairs: list[Pair] = [text for text in texts if not isinstance(text, str)]
    singles = [text for text in texts if isinstance(text, str)]
    return ([first for first, _ in pairs], [second for _, second in pairs]) if pairs else (singles,)


def _writes_alike(tokenizer: PreTrainedTokenizerBase, encoder: PairEncoder) -> bool:
    return bool(tokenizer("a", "a")["input_ids"] == encoder.encode([("a", "a")])[0].tolist())


def _template(tokenizer: PreTrainedTokenizerBase, form: PairForm) -> TemplateProcessing:
    """The form of a pair beside the tokenizer's own of a single text."""
    before, after = special_ids(tokenizer)
    parts = {"before": before, "after": after, "between": form.between}
    return template(tokenizer, parts, ["before", "$A", "after"], ["before", "$A", "between", "$B:0", "after"])
