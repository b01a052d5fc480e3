"""The prompt rule and the length rule: how a text becomes token ids, in training, evaluation, prediction and service alike.

An input is `specials + prompt before + TEXT + prompt after + specials`. Only TEXT is ever shortened, at its end or in its middle, or read
in windows; what was cut is counted. Each part is tokenised for itself, so that the prompt's ids never depend on the text. Pairs of texts
are laid out by pair_encoder.py, and shortened by the rule that stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from fenlei.config import Long
from fenlei.errors import ConfigError, ModelError, RequestError, first_line
from fenlei.text.encoded import EncodedTexts
from fenlei.text.pairs import Text
from fenlei.text.windows import WINDOWED, encode_in_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = {
    "zh": "请判断下面文本的类别。\n文本：{text}\n类别：",
    "en": "Decide which category the text belongs to.\nText: {text}\nCategory:",
}
"""Prompts by language; a user's own is a template with {text}."""

PROBES = ("a", "的", "1", "の", "я", "가")
"""Texts that the tokenizer is looked at with, the first that it has a token for: one that knows no Latin letter may be silent on `a`."""

CHUNK_ROWS, CHUNK_CHARACTERS = 4096, 4_000_000
"""Texts given to the tokenizer at once: enough for its threads, little enough that Python lists of ids stay small."""


class TextEncoder:
    """Texts to token ids under one prompt and one length limit."""

    least_room = 1
    """Tokens that must be left for what is read."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str | None, max_length: int, long: Long = "truncate") -> None:
        self._tokenizer = tokenizer
        self.template = PROMPTS.get(prompt or "", prompt) or "{text}"
        self.max_length = max_length
        self.long = long
        self.room = max_length - self._lay_out()
        if self.room < self.least_room:
            raise ConfigError(
                f"max_length {max_length} leaves no room for the text: the prompt and special tokens take "
                f"{max_length - self.room}; raise max_length or shorten the prompt"
            )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids before and behind every single text: special tokens and prompt."""
        return self._before, self._after

    def encode(self, texts: Sequence[Text]) -> EncodedTexts:
        """The texts; RequestError where one is a pair, which pair_encoder.py reads."""
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise RequestError(f"{wrong!r} is no single text, and this run was not trained on pairs")
        return self._encode_texts(cast("Sequence[str]", texts))

    def _lay_out(self) -> int:
        """Settles what stands around a text; its number of tokens."""
        before, _, after = self.template.partition("{text}")
        specials_before, specials_after = special_ids(self._tokenizer)
        self._before = [*specials_before, *plain_ids(self._tokenizer, before)]
        self._after = [*plain_ids(self._tokenizer, after), *specials_after]
        return len(self._before) + len(self._after)

    def _encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        if self.long in WINDOWED:
            return encode_in_windows(texts, [self.room] * len(texts), self._count, lambda windows, _: self._encode(windows))
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> EncodedTexts:
        pieces, cut = [], []
        for chunk in chunks(texts):
            for ids in token_ids(self._tokenizer, chunk):
                kept = shortened(ids, self.room, self.long)
                cut.append(len(ids) - len(kept))
                pieces.append(np.array([*self._before, *kept, *self._after] or [stand_in(self._tokenizer)], dtype=np.int32))
        return EncodedTexts.of(pieces, cut)

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for chunk in chunks(texts) for ids in token_ids(self._tokenizer, chunk)]


def refuse_place_of_labels(prompt: str | None) -> None:
    """ConfigError for {labels} in the prompt of a head: nothing fills it, and the network would read these letters with every text."""
    if "{labels}" in (prompt or ""):
        raise ConfigError("prompt has a place for the labels, {labels}, which method generate alone fills; write them out, or leave it out")


def stand_in(tokenizer: PreTrainedTokenizerBase) -> int:
    """What an empty text is read as where nothing stands around it, so that there is a last token: eos, or else whatever pads."""
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return int(eos if eos is not None else pad)


def shortened(ids: Sequence[int], room: int, long: Long) -> Sequence[int]:
    """The length rule: what is read of a text's ids where at most `room` can be.

    `head-tail` keeps as much of its beginning as of its end (Sun et al. 2019, "How to fine-tune BERT for text classification"), the others
    the beginning.
    """
    if long != "head-tail" or len(ids) <= room:
        return ids[:room]
    tail = room // 2
    return [*ids[: room - tail], *ids[len(ids) - tail :]]


def shortened_pair(first: Sequence[int], second: Sequence[int], room: int, long: Long) -> tuple[Sequence[int], Sequence[int]]:
    """The length rule for a pair: what is read of both texts' ids where at most `room` can be together, each cut as `shortened` cuts.

    The longer loses tokens until both are of one length, then both in turn, so that each keeps some wherever `room` is 2 or more.
    """
    kept = longest_first(len(first), len(second), room)
    return shortened(first, kept[0], long), shortened(second, kept[1], long)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that two texts of so many keep of `room`: what `longest_first` of transformers' fast tokenizers leaves."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (room - shorter, shorter) if first > second else (shorter, room - shorter)


def chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in groups for the tokenizer, at most CHUNK_ROWS of about CHUNK_CHARACTERS together."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and (len(chunk) == CHUNK_ROWS or size + len(text) > CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special tokens."""
    # verbose=False: the "longer than the maximum" warning is about ids we shorten ourselves.
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of one text, without special tokens."""
    return token_ids(tokenizer, [text])[0] if text else []


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text ([CLS] and [SEP], a bos), found by looking at what it does."""
    named = f"{tokenizer.name_or_path}: its tokenizer ({type(tokenizer).__name__})"
    try:
        known = ((text, plain_ids(tokenizer, text)) for text in PROBES)
        text, probe = next(((text, ids) for text, ids in known if ids), ("", []))
        whole: list[int] = tokenizer(text)["input_ids"] if probe else []
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"{named} does not take a text alone ({first_line(error)}); choose a model that reads plain text") from error
    if not probe:
        raise ModelError(f"{named} gives no token for any of {', '.join(PROBES)}; its files do not fit together, fetch the model again")
    for at in range(len(whole) - len(probe) + 1):
        if whole[at : at + len(probe)] == probe:
            return whole[:at], whole[at + len(probe) :]
    raise ModelError(
        f"{named} gives {text!r} the ids {probe}, and {whole} once special tokens are added: where the text lies cannot be told, and so "
        "not what to shorten; choose a model whose special tokens stand before or after the text"
    )
