"""The corpus as what is trained on: a token stream, and pieces of it that look like the texts a classifier is given.

A work folder's `data` holds tokenizer/, train.npy and held_out.npy (uint16, each line closed by eos) and pieces.npy (int32, one row a
piece: where in train.npy it begins, its tokens, its document).
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizer import train_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

DOCUMENT_CHARACTERS = 20_000
"""Only the beginning of a longer document is read: a few book-length ones would else outweigh thousands of news items."""
HELD_OUT = 0.01
SHORTEST, LONGEST = 6, 64
"""Tokens of a piece."""
HEADLINE_CHARACTERS = 40
"""Lines that are shorter than this on average are headlines, which have nothing to do with one another though one document holds them."""
SENTENCE_ENDS = "。！？；!?"


def documents(corpus: Path) -> list[list[str]]:
    """The corpus as documents, each a list of its lines, shortened to DOCUMENT_CHARACTERS."""
    opener = lzma.open if corpus.suffix == ".xz" else open
    found = []
    with opener(corpus, "rt", encoding="utf-8") as file:
        for block in file.read().split("\n\n"):
            lines, left = [], DOCUMENT_CHARACTERS
            for line in block.split("\n"):
                if left > 0 and line.strip():
                    lines.append(line.strip()[:left])
                    left -= len(lines[-1])
            if lines:
                found.append(lines)
    return found


def prepare(corpus: Path, data: Path, vocabulary: int, context: int, tokenizer_from: Path | None = None) -> PreTrainedTokenizerFast:
    """Writes the folder described above, unless it is there, and returns its tokenizer: trained on the corpus, or a model folder's."""
    if (data / "pieces.npy").exists():
        return AutoTokenizer.from_pretrained(data / "tokenizer")
    data.mkdir(parents=True, exist_ok=True)
    docs = documents(corpus)
    random.Random(0).shuffle(docs)
    if tokenizer_from:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    else:
        tokenizer = train_tokenizer((line for doc in docs for line in doc), vocabulary, context)
    tokenizer.save_pretrained(data / "tokenizer")
    held_out = max(1, int(len(docs) * HELD_OUT))
    for name, part in (("train", docs[held_out:]), ("held_out", docs[:held_out])):
        stream = np.concatenate([[*ids, tokenizer.eos_token_id] for ids in encoded(tokenizer, part)]).astype(np.uint16)
        np.save(data / f"{name}.npy", stream)
        print(f"{name}: {len(part):,} documents, {len(stream):,} tokens", flush=True)
        if name == "train":
            found = pieces(stream, line_documents(part), tokenizer)
    np.save(data / "pieces.npy", found)
    print(f"{len(found):,} pieces of {found[:, 1].mean():.1f} tokens", flush=True)
    return tokenizer


def encoded(tokenizer: PreTrainedTokenizerFast, docs: list[list[str]]) -> list[list[int]]:
    """The ids of each line of the documents, in order."""
    return tokenizer([line for doc in docs for line in doc], verbose=False)["input_ids"]


def line_documents(docs: list[list[str]]) -> list[int]:
    """The number of the document that each line belongs to; a headline is a document of its own."""
    numbers: list[int] = []
    for doc in docs:
        first = numbers[-1] + 1 if numbers else 0
        alone = sum(map(len, doc)) < HEADLINE_CHARACTERS * len(doc)
        numbers += range(first, first + len(doc)) if alone else [first] * len(doc)
    return numbers


def pieces(stream: np.ndarray, documents_of_lines: list[int], tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """int32 (pieces, 3) as pieces.npy has them: whole lines, or, of a longer line, whole sentences as far as they fit."""
    ends = np.flatnonzero(stream == tokenizer.eos_token_id)
    sentence_ends = {ids[-1] for ids in tokenizer(list(SENTENCE_ENDS))["input_ids"]}
    stops = np.flatnonzero(np.isin(stream, list(sentence_ends))) + 1
    lengths = np.random.default_rng(0).integers(SHORTEST * 2, LONGEST, len(stream) // SHORTEST)
    found: list[tuple[int, int, int]] = []
    begin = 0
    for end, document in zip(ends, documents_of_lines, strict=True):
        for first, last in cuts(begin, int(end), stops, lengths[len(found) :]):
            if last - first >= SHORTEST:
                found.append((first, last - first, document))
        begin = int(end) + 1
    return np.array(found, dtype=np.int32).reshape(-1, 3)


def cuts(begin: int, end: int, stops: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, int]]:
    """The pieces of one line of the stream: each ends at the first of the sentence ends `stops` that makes it as long as is wanted."""
    if end - begin <= LONGEST:
        yield begin, end
        return
    number = 0
    while begin < end:
        at = int(np.searchsorted(stops, begin + wanted[number]))
        stop = min(int(stops[at]) if at < len(stops) else end, begin + LONGEST, end)
        yield begin, stop
        begin, number = stop, number + 1
