"""Encoded texts to logits: length-sorted batches under a token budget, answers back in the order of the question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from fenlei.models.devices import fitting, tokens_at_once
from fenlei.models.method import Method, Output
from fenlei.text.batches import batch_of, by_token_budget
from fenlei.text.encoded import EncodedTexts, Windows, windows_of

T = TypeVar("T")

FULL = "free some of it, take --device cpu, or train with --long windows or a lower --max-length, for one long text may fill it"


@dataclass(frozen=True)
class Scores:
    """What a classifier says of some texts, before calibration."""

    logits: np.ndarray
    """float32 (rows, labels)"""
    tokens_cut: np.ndarray
    """int32 (rows,): tokens of each text that did not fit."""
    pooled: np.ndarray | None = None
    """float32 (rows, hidden): the state the head reads; None where it was not asked for."""
    tokens_read: np.ndarray | None = None
    """int64 (rows,): tokens of each row that went through the network, padding and what all rows share not counted."""
    windows: Windows | None = None
    """Where rows were read in windows: which."""
    weights: np.ndarray | None = None
    """float32 (windows,): what each window counted in its row, 1 together; None where all count the same."""


@torch.no_grad()  # not inference_mode, whose tensors do not count their changes: 8-bit products share their inputs by that
def score(
    method: Method,
    encoded: EncodedTexts,
    n_labels: int,
    *,
    batch_tokens: int | None = None,
    autocast: torch.dtype | None = None,
    keep_states: bool = False,
    only: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Logits of every text, or of the rows `only` (the others 0); with `keep_states` also what the head reads, where the method has it
    (encoders have not). `batch_tokens`: through the network at once; None: by the device. `progress` is told the number of rows done
    after each batch.
    """
    states: np.ndarray | None = None
    weights: np.ndarray | None = None
    logits = np.zeros((len(encoded), n_labels), dtype=np.float32)
    lengths = encoded.lengths.tolist()
    done = 0
    budget = batch_tokens or tokens_at_once(method.device)

    def outputs() -> Iterator[tuple[list[int], Output]]:
        for rows in by_token_budget(lengths, range(len(encoded)) if only is None else only, budget):
            precision = torch.autocast(method.device.type, autocast) if autocast else nullcontext()
            with precision, fitting(method.device, FULL, "a pass of prediction"):
                output = method(batch_of(encoded, rows, method.pad_id, budget))
            yield rows, output

    for rows, output in one_behind(outputs()):
        logits[rows] = output.logits.cpu().numpy()
        if keep_states and output.pooled is not None:
            if states is None:
                states = np.zeros((len(encoded), output.pooled.shape[1]), dtype=np.float32)
            states[rows] = output.pooled.cpu().numpy()
        if encoded.windows is not None and output.weights is not None:
            weights = np.zeros(len(encoded.windows.spans), dtype=np.float32) if weights is None else weights
            weights[windows_of(encoded, rows)] = output.weights.cpu().numpy()
        done += len(rows)
        if progress:
            progress(done)
    return Scores(logits, encoded.tokens_cut, states, encoded.lengths, encoded.windows, weights)


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """Each of `items` once the next has been begun: a GPU has work while its last answer is waited for and the one after is prepared."""
    waiting: list[T] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting
