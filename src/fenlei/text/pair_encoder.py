"""Pairs of texts to token ids: `before + FIRST + between + SECOND + after`, as the tokenizer itself writes a pair.

Where the tokenizer puts nothing between two texts, as those of most decoders, a line break stands there. With a prompt it is the prompt
that says what stands between them. Only the two texts are ever shortened, the longer one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from fenlei.config import Long
from fenlei.errors import ModelError, first_line
from fenlei.text.encoded import EncodedTexts
from fenlei.text.pairs import Pair, Text, check_texts
from fenlei.text.prompts import PROBES, TextEncoder, chunks, plain_ids, shortened_pair, special_ids, stand_in, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IdsOf: TypeAlias = "Callable[[PreTrainedTokenizerBase, Sequence[str]], list[list[int]]]"

LINE_BREAK = "\n"
"""What stands between two texts where the tokenizer puts nothing there."""
LEAST_ROOM = 2
"""Tokens that two texts need to be read at all, one each."""


@dataclass(frozen=True)
class PairForm:
    """What stands around two texts."""

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int], int, list[int]] | None = None
    """The token types of before, first text, between, second text and after; None where the tokenizer gives none."""

    @property
    def length(self) -> int:
        """Tokens that are not the texts'."""
        return len(self.before) + len(self.between) + len(self.after)

    def types_of(self, first: int, second: int) -> list[int]:
        """The token types of a pair of so many tokens each; none where the tokenizer gives none."""
        if self.types is None:
            return []
        before, of_first, between, of_second, after = self.types
        return [*before, *[of_first] * first, *between, *[of_second] * second, *after]


def pair_form(tokenizer: PreTrainedTokenizerBase) -> PairForm:
    """The tokenizer's own form of a pair, found by looking at what it does; a line break between where it puts nothing there.

    ModelError where the texts are not to be found again in what the tokenizer makes of two.
    """
    before, after = special_ids(tokenizer)
    text, probe = next((text, ids) for text in PROBES if (ids := plain_ids(tokenizer, text)))
    named = f"{tokenizer.name_or_path}: its tokenizer ({type(tokenizer).__name__})"
    try:
        said = tokenizer(text, text)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"{named} does not take a pair of texts ({first_line(error)}); choose a model that reads pairs") from error
    whole: list[int] = said["input_ids"]
    first = _found(probe, whole, 0)
    second = None if first is None else _found(probe, whole, first + len(probe))
    if first is None or second is None:
        raise ModelError(
            f"{named} gives the pair {text!r}, {text!r} the ids {whole}: where its texts lie cannot be told; choose another model"
        )
    end_of_first, end_of_second = first + len(probe), second + len(probe)
    if end_of_first == second:
        return PairForm(before, plain_ids(tokenizer, LINE_BREAK), after)
    kinds: list[int] | None = said.get("token_type_ids")
    types = None
    if kinds is not None:
        types = (kinds[:first], kinds[first], kinds[end_of_first:second], kinds[second], kinds[end_of_second:])
    return PairForm(whole[:first], whole[end_of_first:second], whole[end_of_second:], types)


class PairEncoder(TextEncoder):
    """Pairs of texts to token ids under one prompt and one length limit."""

    least_room = LEAST_ROOM

    def encode(self, texts: Sequence[Text]) -> EncodedTexts:
        """The pairs, the longer text of each shortened where both do not fit; RequestError where anything is no pair."""
        check_texts(texts, pairs=True)
        pieces, types, cut = [], [], []
        for first, second in paired_ids(self._tokenizer, cast("Sequence[Pair]", texts)):
            one, other = shortened_pair(first, second, self.room, self.long)
            cut.append(len(first) + len(second) - len(one) - len(other))
            ids = [*self.form.before, *one, *self.form.between, *other, *self.form.after]
            pieces.append(np.array(ids or [stand_in(self._tokenizer)], dtype=np.int32))
            types.append(np.array(self.form.types_of(len(one), len(other)), dtype=np.int8))
        kinds = np.concatenate(types) if types and self.form.types is not None else None
        return EncodedTexts.of(pieces, cut, token_types=kinds)

    def _lay_out(self) -> int:
        """Settles what stands around two texts; its number of tokens."""
        self.form = pair_form(self._tokenizer) if self.template == "{text}" else self._prompted_form()
        return self.form.length

    def _prompted_form(self) -> PairForm:
        """The prompt's words around and between, as text."""
        self.template = pair_template(self.template)
        before, _, rest = self.template.partition("{text}")
        between, _, after = rest.partition("{pair}")
        specials_before, specials_after = special_ids(self._tokenizer)
        around = [plain_ids(self._tokenizer, words) for words in (before, between, after)]
        return PairForm([*specials_before, *around[0]], around[1], [*around[2], *specials_after])


def text_encoder(
    tokenizer: PreTrainedTokenizerBase, prompt: str | None, max_length: int, long: Long = "truncate", *, pairs: bool = False
) -> TextEncoder:
    """The encoder of single texts, or of pairs."""
    return (PairEncoder if pairs else TextEncoder)(tokenizer, prompt, max_length, long)


def pair_template(template: str) -> str:
    """The template with a place for the second text: its own, else the line below the first."""
    return template if "{pair}" in template else template.replace("{text}", f"{{text}}{LINE_BREAK}{{pair}}")


def paired_ids(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], ids_of: IdsOf = token_ids
) -> Iterator[tuple[list[int], list[int]]]:
    """The token ids of both texts of each pair; `ids_of` tokenises texts."""
    flat = [text for pair in pairs for text in pair]
    ids = (one for chunk in chunks(flat) for one in ids_of(tokenizer, chunk))
    return zip(ids, ids, strict=True)


def _found(probe: list[int], whole: list[int], start: int) -> int | None:
    """The first place from `start` on where `probe` lies in `whole`."""
    return next((at for at in range(start, len(whole) - len(probe) + 1) if whole[at : at + len(probe)] == probe), None)
