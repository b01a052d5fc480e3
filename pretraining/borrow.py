"""Input embeddings for `nano` started from a bigger model's: each entry is the mean of the donor's embeddings of the same string,
projected on the donor's principal components.

A small model cannot learn from a few million tokens that 央行 and 利率 are neighbours; the donor's embedding table already knows.
Cf. Minixhofer et al. 2022 (WECHSEL) and Gee et al. 2022 for the same idea across vocabularies.
"""

from __future__ import annotations

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

ROOT_MEAN_SQUARE = 0.05
"""Of the borrowed table. Well above AdamW's step, or the first hundred steps would wipe out what was borrowed."""


def borrowed_embeddings(donor: str, tokenizer: PreTrainedTokenizerFast, width: int) -> torch.Tensor:
    """float32 (entries, width). Entries that are no whole UTF-8 text (parts of a character) start as noise."""
    donor_tokenizer = AutoTokenizer.from_pretrained(donor)
    table = AutoModel.from_pretrained(donor, dtype=torch.bfloat16).get_input_embeddings().weight.detach()
    means = torch.zeros(len(tokenizer), table.shape[1])
    known = torch.zeros(len(tokenizer), dtype=torch.bool)
    for token_id in range(len(tokenizer)):
        string = tokenizer.decode([token_id])
        if "\ufffd" in string or not string:
            continue
        ids = donor_tokenizer(string, add_special_tokens=False)["input_ids"]
        means[token_id] = table[ids].float().mean(dim=0)
        known[token_id] = True
    centred = means[known] - means[known].mean(dim=0)
    _, _, components = torch.pca_lowrank(centred, q=width, center=False)
    projected = centred @ components
    borrowed = torch.randn(len(tokenizer), width) * ROOT_MEAN_SQUARE
    borrowed[known] = projected * (ROOT_MEAN_SQUARE / projected.pow(2).mean().sqrt())
    return borrowed
