"""One way to train a classifier of Qwen1.5-7B's shape on texts of about 512 tokens.

python -m bench.seven_billion WAY [--device DEVICE] [--tiny]

full: all weights in bfloat16, AdamW's moments too: else no GPU of 80 GB could hold them. peft: LoRA as PEFT computes it, under autocast.
fenlei: LoRA as fenlei computes it. All take ROWS rows an optimiser step; the first two pad them in parts of as many rows as fit, found by
halving. Weights are drawn in place: no file is read. Prints one line of JSON; bench.gpu runs it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, Qwen2Config

from bench.ours.said import peak_bytes
from fenlei.config import ModelConfig
from fenlei.models.attention import speed_up_short_rows
from fenlei.models.head import HeadMethod, parameter_counts
from fenlei.models.lora import add_lora
from fenlei.text.batches import TrainingBatches, by_token_budget, collate, sent
from fenlei.text.encoded import EncodedTexts
from fenlei.training.memory import gpu_batch_tokens

SEVEN = {"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
         "vocab_size": 151_936}  # fmt: skip
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "vocab_size": 500}  # fmt: skip
RANK, ROWS, STEPS, LABELS, PAD = 8, 16, 6, 10, 0
FULL_BYTES = 8
"""A weight in bfloat16, its gradient and AdamW's two moments."""

Step = Callable[[list[int]], None]
"""Forward and backward passes over the rows of a step."""


def main() -> None:
    """Takes STEPS steps after one that is not timed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=["full", "peft", "fenlei"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    texts, gold = made_up_texts((8, 24) if given.tiny else (256, 768), (STEPS + 1) * ROWS)
    network = drawn(TINY if given.tiny else SEVEN, given.device)
    steps = list(TrainingBatches(texts.lengths, ROWS, 0, alike=True))
    if given.way != "fenlei":
        mixed = np.random.default_rng(0).permutation(len(texts)).tolist()  # a plain loader knows nothing of lengths
        steps = [mixed[at : at + ROWS] for at in range(0, len(mixed), ROWS)]
    try:
        told = WAYS[given.way](network, texts, gold, steps)
    except torch.OutOfMemoryError as error:
        told = {"out_of_memory": str(error).splitlines()[0][:200]}
    trainable, everything = parameter_counts(network)
    needs = {"needs_gb_before_activations": round(FULL_BYTES * everything / 1e9, 1)} if given.way == "full" else {}
    shared = {"way": given.way, "parameters": everything, "trainable_share": trainable / everything, "peak_bytes": peak_bytes(given.device)}
    print(json.dumps({**shared, **needs, **told}))


def drawn(shape: dict[str, int], device: str) -> Any:
    """A classifier of this shape with random weights in bfloat16, drawn on the device."""
    config = Qwen2Config(**shape, num_labels=LABELS, pad_token_id=PAD)
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)


def made_up_texts(lengths: tuple[int, int], rows: int) -> tuple[EncodedTexts, torch.Tensor]:
    """Token ids of as many rows, evenly of all lengths between these, and label ids."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(*lengths, rows)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ids = draw.integers(1, 400, starts[-1]).astype(np.int32)
    return EncodedTexts(ids, starts, np.zeros(rows, dtype=np.int32)), torch.from_numpy(draw.integers(0, LABELS, rows))


def full(network: Any, texts: EncodedTexts, gold: torch.Tensor, steps: Sequence[list[int]]) -> dict[str, Any]:
    """What is told of training all weights."""
    return _in_parts_that_fit(network, texts, gold, steps, autocast=False)


def peft(network: Any, texts: EncodedTexts, gold: torch.Tensor, steps: Sequence[list[int]]) -> dict[str, Any]:
    """What is told of LoRA with PEFT."""
    from peft import LoraConfig, TaskType, get_peft_model

    adapted = get_peft_model(network, LoraConfig(task_type=TaskType.SEQ_CLS, r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    return _in_parts_that_fit(adapted, texts, gold, steps, autocast=True)


def fenlei(network: Any, texts: EncodedTexts, gold: torch.Tensor, steps: Sequence[list[int]]) -> dict[str, Any]:
    """What is told of LoRA with fenlei: rows of like length together under the token budget that the GPU's memory allows."""
    device = network.device
    network.score.float()
    speed_up_short_rows(network)
    method = HeadMethod(add_lora(network, ModelConfig(lora_rank=RANK, lora_alpha=2 * RANK)), PAD).train()
    budget = int(str(gpu_batch_tokens(method, texts.longest_input, None).value)) if device.type == "cuda" else 200

    def step(rows: list[int]) -> None:
        for group in by_token_budget(texts.lengths, rows, budget):
            logits = method(collate(texts, group, PAD)).logits
            loss = torch.nn.functional.cross_entropy(logits, sent(gold[group], device), reduction="sum") / len(rows)
            loss.backward()

    return {**_timed(network, step, steps, texts), "batch_tokens": budget}


WAYS = {"full": full, "peft": peft, "fenlei": fenlei}


def _in_parts_that_fit(network: Any, texts: EncodedTexts, gold: torch.Tensor, steps: Sequence[list[int]], *, autocast: bool) -> Any:
    """As transformers.Trainer does it: rows padded to the longest of a part, a mask, gradients added up; the head's own loss."""
    network.train()
    device = next(network.parameters()).device

    def step_of(part: int) -> Step:
        def step(rows: list[int]) -> None:
            for first in range(0, len(rows), part):
                batch = collate(texts, rows[first : first + part], PAD).to(device)
                labels = sent(gold[rows[first : first + part]], device)
                with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                    loss = network(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
                (loss * (part / len(rows))).backward()

        return step

    part = ROWS
    while True:
        try:
            return {**_timed(network, step_of(part), steps, texts), "rows_at_once": part}
        except torch.OutOfMemoryError:
            if part == 1:
                raise
        part //= 2
        network.zero_grad()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _timed(network: Any, step: Step, steps: Sequence[list[int]], texts: EncodedTexts) -> dict[str, Any]:
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5, fused=True)
    ends = []
    for rows in steps:
        step(rows)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if learning[0].is_cuda:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
    seconds = ends[-1] - ends[0]
    tokens = int(sum(texts.lengths[rows].sum() for rows in steps[1:]))
    rows_timed = sum(len(rows) for rows in steps[1:])
    return {"rows": rows_timed, "seconds": seconds, "seconds_a_step": seconds / (len(steps) - 1), "tokens_a_second": tokens / seconds}


if __name__ == "__main__":
    main()
