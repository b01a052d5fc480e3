"""Texts to compare two models on when the user gave none: random entries of the vocabulary, of many lengths."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerBase

LONGEST = 24
SEED = 0


def sample_texts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """`count` texts of 1 to 24 tokens, always the same, without special tokens or broken characters."""
    generator = np.random.default_rng(SEED)
    special = set(tokenizer.all_special_ids)
    ordinary = np.array([i for i in range(len(tokenizer)) if i not in special])
    texts: list[str] = []
    while len(texts) < count:
        ids = generator.choice(ordinary, size=int(generator.integers(1, LONGEST + 1)))
        text = str(tokenizer.decode(ids.tolist(), skip_special_tokens=True)).replace("\ufffd", "").strip()
        if text:
            texts.append(text)
    return texts
