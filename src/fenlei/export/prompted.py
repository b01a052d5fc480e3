"""A run with a prompt in a stock folder: its tokenizer puts every text inside the prompt, and shortens the text alone, as the run does.

Whoever wrote the prompt around a text himself would get other tokens: a run tokenises prompt and text each for itself, and in one string
the end of the prompt and the beginning of the text become one token wherever the vocabulary has such a one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fenlei.errors import ConfigError
from fenlei.text.asking import QuestionEncoder
from fenlei.text.pair_encoder import PairEncoder
from fenlei.text.prompts import TextEncoder


def teach_prompt(tokenizer: PreTrainedTokenizerBase, encoder: TextEncoder) -> list[str]:
    """Has the tokenizer put single texts inside the prompt; a note where there is one.

    ConfigError where it cannot be told to, being no fast one.
    """
    if encoder.template == "{text}":
        return []
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ConfigError(
            f"the tokenizer ({type(tokenizer).__name__}) cannot be told to put texts inside the run's prompt ({encoder.template!r}); "
            "use the run itself"
        )
    before, after = encoder.around
    backend.post_processor = template(tokenizer, {"before": before, "after": after}, ["before", "$A", "after"])
    return ["the folder's tokenizer puts every text inside the run's prompt: give bare texts"]


def check_prompt(folder: Path, encoder: TextEncoder | QuestionEncoder) -> None:
    """ConfigError where the tokenizer of `folder`, opened by others, does not put a text inside the prompt.

    Those of BERT's kin lay out what stands around a text anew whenever they are opened.
    """
    if not isinstance(encoder, TextEncoder) or isinstance(encoder, PairEncoder) or encoder.template == "{text}":
        return
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    before, after = encoder.around
    if tokenizer("")["input_ids"] != [*before, *after]:
        raise ConfigError(
            f"a {type(tokenizer).__name__} forgets the run's prompt ({encoder.template!r}) when it is saved and opened again; use the run "
            "itself, or train without --prompt to export"
        )


def template(
    tokenizer: PreTrainedTokenizerBase, parts: Mapping[str, Sequence[int]], single: Sequence[str], pair: Sequence[str] | None = None
) -> TemplateProcessing:
    """What a fast tokenizer puts around a text, and a pair: `parts` by name, in the order of `single` and `pair`; $A and $B are texts."""
    named = {name: list(ids) for name, ids in parts.items() if ids}
    specials: list[Any] = [{"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)} for name, ids in named.items()]
    orders = [[name for name in order if name.startswith("$") or name in named] for order in (single, pair or ["$A", "$B"])]
    return TemplateProcessing(single=orders[0], pair=orders[1], special_tokens=specials)
