"""Text to token ids as text: what spells a control token (`<|im_end|>`) stays letters, and never ends a turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL: WeakKeyDictionary[PreTrainedTokenizerBase, dict[int, str]] = WeakKeyDictionary()
"""Of each tokenizer: some have thousands, which take longer to list than a few texts to read."""


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, none of them an added token of the tokenizer."""
    if not texts:
        return []
    # verbose=False: the "longer than the maximum" warning is about ids that are shortened later.
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    control = control_tokens(tokenizer)
    for at, ids in enumerate(found):
        if not control.keys().isdisjoint(ids):  # `split_special_tokens` knows those called special; <think> and <tool_call> are only added
            found[at] = _in_pieces(tokenizer, texts[at], sorted(control.values(), key=len, reverse=True))
    return found


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Added tokens and their spelling, without those that text may well become: runs of blanks (Gemma, GPT-NeoX), and the unknown token.

    They are listed once: a tokenizer that has read a text must be given no more of them.
    """
    if tokenizer not in _CONTROL:
        added, unknown = tokenizer.get_added_vocab().items(), tokenizer.unk_token_id
        _CONTROL[tokenizer] = {place: spelt for spelt, place in added if len(spelt.strip("\u2581 \t\r\n")) > 1 and place != unknown}
    return _CONTROL[tokenizer]


def control_ids(tokenizer: PreTrainedTokenizerBase, markup: str) -> list[int]:
    """The ids of a prompt's own text, in which control tokens are what they spell."""
    ids: list[int] = tokenizer([markup], add_special_tokens=False, verbose=False)["input_ids"][0] if markup else []
    return ids


def _in_pieces(tokenizer: PreTrainedTokenizerBase, text: str, added: Sequence[str]) -> list[int]:
    """Cut within every control token's spelling, after its first letter, so that no piece spells one."""
    pieces, at = [], 0
    for found in re.finditer("|".join(re.escape(token) for token in added), text):
        pieces.append(text[at : found.start() + 1])
        at = found.start() + 1
    pieces.append(text[at:])
    rows: list[list[int]] = tokenizer(
        [piece for piece in pieces if piece], add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return [token_id for row in rows for token_id in row]
