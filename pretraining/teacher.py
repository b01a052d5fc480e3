"""What a bigger model makes of the corpus' lines: the vectors that `nano` learns to give back (see distillation.py).

    python pretraining/teacher.py --work DIR --donor MODEL_FOLDER [--lines 60000]

Reads the token stream that pretrain_nano.py prepared in DIR and writes DIR/teacher/00000.npz, ...: line numbers and vectors, CHUNK
lines a file. Started again it goes on with the first file that is missing.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

DEPTH = 6
"""Layers of the donor that are run. The mean of its sixth layer's states, normed, tells topics apart as well as deeper ones do
(a linear probe on the built-in training rows), at a quarter of the cost."""
SHORTEST, LONGEST = 6, 128
"""Tokens of a line that is worth a vector."""
CHUNK, BATCH = 2048, 16


def line_ends(stream: np.ndarray, eos_id: int) -> np.ndarray:
    """The position of each line's eos in the stream, in order."""
    return np.flatnonzero(stream == eos_id)


def chosen_lines(ends: np.ndarray, count: int) -> np.ndarray:
    """A seeded sample of the lines that are neither too short nor too long."""
    lengths = np.diff(ends, prepend=-1) - 1
    fitting = np.flatnonzero((lengths >= SHORTEST) & (lengths <= LONGEST))
    return np.random.default_rng(0).permutation(fitting)[:count]


@torch.no_grad()
def vectors(model: torch.nn.Module, tokenizer, texts: list[str]) -> np.ndarray:
    """float32 (texts, width): the mean of the states over the real tokens."""
    found = np.empty((len(texts), model.config.hidden_size), np.float32)
    order = np.argsort([len(text) for text in texts])
    for rows in np.array_split(order, -(-len(order) // BATCH)):
        batch = tokenizer([texts[row] for row in rows], return_tensors="pt", padding=True, padding_side="right")
        states = model(**batch, use_cache=False).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        found[rows] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--donor", required=True)
    parser.add_argument("--lines", type=int, default=60_000)
    args = parser.parse_args()
    stream, ours = np.load(args.work / "train.npy"), AutoTokenizer.from_pretrained(args.work / "tokenizer")
    ends = line_ends(stream, ours.eos_token_id)
    lines = chosen_lines(ends, args.lines)
    tokenizer = AutoTokenizer.from_pretrained(args.donor)
    model = AutoModel.from_pretrained(args.donor, dtype=torch.bfloat16).eval()
    model.layers = model.layers[:DEPTH]
    (args.work / "teacher").mkdir(exist_ok=True)
    began = time.time()
    for number, first in enumerate(range(0, len(lines), CHUNK)):
        path = args.work / "teacher" / f"{number:05}.npz"
        if path.exists():
            continue
        part = lines[first : first + CHUNK]
        texts = [ours.decode(stream[ends[line - 1] + 1 if line else 0 : ends[line]].tolist()) for line in part]
        with path.with_suffix(".tmp").open("wb") as file:
            np.savez(file, lines=part, vectors=vectors(model, tokenizer, texts).astype(np.float16))
        os.replace(path.with_suffix(".tmp"), path)
        print(f"{min(first + CHUNK, len(lines)):,} of {len(lines):,} lines, {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
