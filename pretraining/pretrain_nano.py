"""Pretrain `nano`, the small causal language model that ships with fenlei, on plain text.

    python pretraining/pretrain_nano.py CORPUS --work DIR [--donor MODEL_FOLDER] [--tokens 12300000]
    python pretraining/teacher.py --work DIR --donor MODEL_FOLDER            # from then on the donor's vectors are learned as well
    python pretraining/pretrain_nano.py CORPUS --work DIR --tokens 20000000
    python pretraining/pretrain_nano.py CORPUS --work DIR --publish src/fenlei/models/nano/weights

CORPUS: a text file (.txt or .xz), one paragraph or headline a line, documents parted by blank lines. Everything lies in DIR: the
tokenizer, the token stream, checkpoints and log.jsonl. Started again with the same DIR it goes on from the last checkpoint; with more
tokens than before, the learning rate rises again to where the longer schedule has it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from borrow import borrowed_embeddings
from distillation import Teacher
from objectives import SHARES, Objectives, held_out_loss
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizer import train_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCAB, WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, CONTEXT = 8192, 256, 4, 4, 2, 2048
SEQUENCE, BATCH = 256, 16
PEAK_RATE, WARM_UP_STEPS, FINAL_RATE_SHARE, WEIGHT_DECAY = 1.5e-3, 100, 0.05, 0.1
DOCUMENT_CHARACTERS = 1000
"""Only the beginning of a long document is read: a few book-length ones would else outweigh thousands of news items."""
HELD_OUT = 0.01
CHECKPOINT_EVERY, EVALUATE_EVERY = 100, 400
MOMENTS = ("exp_avg", "exp_avg_sq")


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


def prepare(corpus: Path, work: Path) -> PreTrainedTokenizerFast:
    """Trains the tokenizer and writes train.npy and held_out.npy (uint16 token streams), each line closed by eos."""
    if (work / "held_out.npy").exists():
        return AutoTokenizer.from_pretrained(work / "tokenizer")
    work.mkdir(parents=True, exist_ok=True)
    docs = documents(corpus)
    random.Random(0).shuffle(docs)
    tokenizer = train_tokenizer((line for doc in docs for line in doc), VOCAB, CONTEXT)
    tokenizer.save_pretrained(work / "tokenizer")
    held_out = max(1, int(len(docs) * HELD_OUT))
    for name, part in (("train", docs[held_out:]), ("held_out", docs[:held_out])):
        lines = [line for doc in part for line in doc]
        stream = [i for ids in tokenizer(lines)["input_ids"] for i in [*ids, tokenizer.eos_token_id]]
        np.save(work / f"{name}.npy", np.array(stream, dtype=np.uint16))
        print(f"{name}: {len(part):,} documents, {sum(map(len, lines)):,} characters, {len(stream):,} tokens", flush=True)
    return tokenizer


def build(tokenizer: PreTrainedTokenizerFast, donor: str | None) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=WIDTH // HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    if donor:
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(borrowed_embeddings(donor, tokenizer, WIDTH))
    return model


def windows_of(stream: np.ndarray, first_step: int, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For step `first_step` and on: (rows, SEQUENCE) tokens, and where in the stream each row begins.

    An epoch is a seeded permutation of the stream's windows, shifted anew each epoch so that the same text meets other neighbours.
    """
    step = first_step
    while True:
        windows = len(stream) // SEQUENCE - 1
        epoch, at = divmod(step, windows // rows)
        generator = np.random.default_rng(epoch)
        shift, order = generator.integers(SEQUENCE), generator.permutation(windows)
        starts = order[at * rows : (at + 1) * rows] * SEQUENCE + shift
        yield np.stack([stream[start : start + SEQUENCE] for start in starts]).astype(np.int64), starts
        step += 1


def batches(stream: np.ndarray, teacher: Teacher | None, first_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(BATCH, SEQUENCE) tokens; the last half of the rows are the teacher's lines, if there is one: where in its stream those begin."""
    taught_rows = BATCH // 2 if teacher else 0
    plain = windows_of(stream, first_step, BATCH - taught_rows)
    if teacher is None:
        yield from ((torch.from_numpy(tokens), torch.empty(0, dtype=torch.long)) for tokens, _ in plain)
    else:
        for (tokens, _), (taught, starts) in zip(plain, windows_of(teacher.stream, first_step, taught_rows), strict=False):
            yield torch.from_numpy(np.concatenate([tokens, taught])), torch.from_numpy(starts)


def learning_rate(step: int, steps: int) -> float:
    if step < WARM_UP_STEPS:
        return PEAK_RATE * (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
    return PEAK_RATE * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameters_in_order(model: Qwen3ForCausalLM, objectives: Objectives) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and parameters in the optimizer's order: matrices (decayed) first, then norm weights (not decayed)."""
    named = [*model.named_parameters(), *objectives.named_parameters()]
    return sorted(named, key=lambda item: item[1].ndim == 1)


def new_optimizer(model: Qwen3ForCausalLM, objectives: Objectives) -> torch.optim.AdamW:
    ordered = [parameter for _, parameter in parameters_in_order(model, objectives)]
    groups = [
        {"params": [p for p in ordered if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in ordered if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)


def save_checkpoint(work: Path, model: Qwen3ForCausalLM, objectives: Objectives, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One safetensors file with weights and AdamW moments, written to a temporary name and renamed."""
    ordered = parameters_in_order(model, objectives)
    tensors = {f"weight.{name}": parameter.detach() for name, parameter in ordered}
    for (name, _), state in zip(ordered, optimizer.state_dict()["state"].values(), strict=True):
        tensors |= {f"{key}.{name}": state[key] for key in MOMENTS}
    save_file(tensors, work / "checkpoint.tmp", metadata={"step": str(step)})
    os.replace(work / "checkpoint.tmp", work / "checkpoint.safetensors")


def load_checkpoint(work: Path, model: Qwen3ForCausalLM, objectives: Objectives, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from; 0 where there is no checkpoint."""
    path = work / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
    tensors, state = load_file(path), {}
    with torch.no_grad():
        for index, (name, parameter) in enumerate(parameters_in_order(model, objectives)):
            if f"weight.{name}" not in tensors:  # an objective added since
                state[index] = {key: torch.zeros_like(parameter) for key in MOMENTS} | {"step": torch.tensor(float(step))}
                continue
            parameter.copy_(tensors[f"weight.{name}"])
            state[index] = {key: tensors[f"{key}.{name}"] for key in MOMENTS} | {"step": torch.tensor(float(step))}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def train(work: Path, model: Qwen3ForCausalLM, objectives: Objectives, budget: int) -> None:
    stream, held_out = np.load(work / "train.npy", mmap_mode="r"), np.load(work / "held_out.npy")
    optimizer = new_optimizer(model, objectives)
    steps, first, began = budget // (SEQUENCE * BATCH), load_checkpoint(work, model, objectives, optimizer), time.time()
    for step, (tokens, taught_from) in zip(range(first, steps), batches(stream, objectives.teacher, first), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        losses = objectives(model, tokens, taught_from)
        sum(SHARES[name] * loss for name, loss in losses.items()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % CHECKPOINT_EVERY == 0 or done == steps:
            save_checkpoint(work, model, objectives, optimizer, done)
        if done % 50 == 0 or done == steps:
            rate = (done - first) * SEQUENCE * BATCH / (time.time() - began)
            entry = {
                "step": done,
                "of": steps,
                **{name: round(loss.item(), 4) for name, loss in losses.items()},
                "tokens_per_second": round(rate),
            }
            if done % EVALUATE_EVERY == 0 or done == steps:
                entry["held_out_loss"] = round(held_out_loss(model, held_out, SEQUENCE, BATCH), 4)
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            print(entry, flush=True)


def publish(work: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """The weights in float16 (half the size; their magnitudes lie far inside its range) with tokenizer, as a stock folder."""
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--donor", help="a model folder whose embeddings start ours")
    parser.add_argument("--tokens", type=int, default=12_300_000)
    parser.add_argument("--publish", type=Path)
    args = parser.parse_args()
    tokenizer = prepare(args.corpus, args.work)
    model = build(tokenizer, None if args.publish or (args.work / "checkpoint.safetensors").exists() else args.donor)
    objectives = Objectives.for_stream(args.work, len(tokenizer), WIDTH, tokenizer.eos_token_id)
    if args.publish:
        load_checkpoint(args.work, model, objectives, new_optimizer(model, objectives))
        publish(args.work, model, tokenizer, args.publish)
    else:
        train(args.work, model, objectives, args.tokens)


if __name__ == "__main__":
    main()
