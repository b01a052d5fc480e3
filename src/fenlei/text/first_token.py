"""A first token for texts whose tokenizer sets none.

Decoders turn much of their attention to whatever stands first, an "attention sink" (Xiao et al. 2023, "Efficient Streaming Language
Models with Attention Sinks"), and what that token says is all but lost on them. The tokenizers of Llama and DeepSeek begin with a token of
no meaning, Qwen's with the text. In a title of fourteen tokens that is felt: docs/results.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, processors

from fenlei.text.prompts import special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "{text}"
DOCUMENT = "<|endoftext|>"
"""What Qwen, GPT and their kin have read between documents."""


def set_first_token(tokenizer: PreTrainedTokenizerBase, prompt: str | None) -> str | None:
    """Lets `tokenizer` begin every text with a token, where nothing stands there: it is saved so, and everyone who opens the run's or the
    exported folder tokenizes so.

    The token; None where it has a first one, a prompt begins, or the tokenizer is none of the `tokenizers` library.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    between = DOCUMENT if DOCUMENT in tokenizer.get_vocab() else tokenizer.eos_token
    token = tokenizer.bos_token or between
    begins = prompt is not None and not prompt.startswith(TEXT)
    if token is None or begins or not isinstance(backend, Tokenizer) or any(special_ids(tokenizer)):
        return None
    place = tokenizer.convert_tokens_to_ids(token)
    backend.post_processor = processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A $B:1", special_tokens=[(token, place)])
    return str(token)
