"""Pretrain `nano`, the small causal language model that ships with fenlei, on plain text.

    python pretraining/pretrain_nano.py CORPUS --work DIR [--donor MODEL_FOLDER] [--tokens 12300000]
    python pretraining/pretrain_nano.py CORPUS --work DIR --publish src/fenlei/models/nano/weights

CORPUS: a text file (.txt or .xz), one paragraph or headline a line, documents parted by blank lines. Everything lies in DIR: the
tokenizer, the token stream, checkpoints and log.jsonl. Started again with the same DIR it goes on from the last checkpoint.
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
from bag_of_words import BagOfWords
from borrow import borrowed_embeddings
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizer import train_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCAB, WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, CONTEXT = 8192, 256, 4, 4, 2, 2048
SEQUENCE, BATCH = 256, 16
PEAK_RATE, WARM_UP_STEPS, FINAL_RATE_SHARE, WEIGHT_DECAY = 1.5e-3, 100, 0.05, 0.1
DOCUMENT_CHARACTERS = 1000
"""Only the beginning of a long document is read: a few book-length ones would else outweigh thousands of news items."""
BAG_SHARE = 0.3
"""Weight of the bag-of-words loss beside the next-token loss."""
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


def batches(stream: np.ndarray, first_step: int) -> Iterator[torch.Tensor]:
    """Batch `first_step`, `first_step + 1`, ... of (BATCH, SEQUENCE) tokens: an epoch is a seeded permutation of the stream's windows,
    shifted anew each epoch so that the same text meets other neighbours.
    """
    step = first_step
    while True:
        windows = len(stream) // SEQUENCE - 1
        epoch, at = divmod(step, windows // BATCH)
        generator = np.random.default_rng(epoch)
        shift, order = generator.integers(SEQUENCE), generator.permutation(windows)
        rows = order[at * BATCH : (at + 1) * BATCH] * SEQUENCE + shift
        yield torch.from_numpy(np.stack([stream[r : r + SEQUENCE] for r in rows]).astype(np.int64))
        step += 1


def losses_of(model: Qwen3ForCausalLM, bag: BagOfWords, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Next-token loss in nats a token, and the loss of the words of each line read back from its last state."""
    with torch.autocast("cpu", torch.bfloat16):
        states = model.model(input_ids=tokens, use_cache=False).last_hidden_state
        logits = model.lm_head(states[:, :-1])
    next_token = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
    return next_token, bag(states, tokens, model.get_input_embeddings().weight)


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, bag: BagOfWords, stream: np.ndarray) -> float:
    """Mean next-token loss in nats a token."""
    windows = torch.from_numpy(stream[: len(stream) // SEQUENCE * SEQUENCE].astype(np.int64)).view(-1, SEQUENCE)
    model.eval()
    losses = [losses_of(model, bag, part)[0].item() * len(part) for part in windows.split(BATCH)]
    model.train()
    return sum(losses) / len(windows)


def learning_rate(step: int, steps: int) -> float:
    if step < WARM_UP_STEPS:
        return PEAK_RATE * (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
    return PEAK_RATE * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def parameters_in_order(model: Qwen3ForCausalLM, bag: BagOfWords) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and parameters in the optimizer's order: matrices (decayed) first, then norm weights (not decayed)."""
    named = [*model.named_parameters(), *((f"bag.{name}", parameter) for name, parameter in bag.named_parameters())]
    return sorted(named, key=lambda item: item[1].ndim == 1)


def new_optimizer(model: Qwen3ForCausalLM, bag: BagOfWords) -> torch.optim.AdamW:
    ordered = [parameter for _, parameter in parameters_in_order(model, bag)]
    groups = [
        {"params": [p for p in ordered if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in ordered if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)


def save_checkpoint(work: Path, model: Qwen3ForCausalLM, bag: BagOfWords, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One safetensors file with weights and AdamW moments, written to a temporary name and renamed."""
    ordered = parameters_in_order(model, bag)
    tensors = {f"weight.{name}": parameter.detach() for name, parameter in ordered}
    for (name, _), state in zip(ordered, optimizer.state_dict()["state"].values(), strict=True):
        tensors |= {f"{key}.{name}": state[key] for key in MOMENTS}
    save_file(tensors, work / "checkpoint.tmp", metadata={"step": str(step)})
    os.replace(work / "checkpoint.tmp", work / "checkpoint.safetensors")


def load_checkpoint(work: Path, model: Qwen3ForCausalLM, bag: BagOfWords, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on from; 0 where there is no checkpoint."""
    path = work / "checkpoint.safetensors"
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
    tensors, state = load_file(path), {}
    with torch.no_grad():
        for index, (name, parameter) in enumerate(parameters_in_order(model, bag)):
            parameter.copy_(tensors[f"weight.{name}"])
            state[index] = {key: tensors[f"{key}.{name}"] for key in MOMENTS} | {"step": torch.tensor(float(step))}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def train(work: Path, model: Qwen3ForCausalLM, bag: BagOfWords, tokens: int) -> None:
    stream, held_out = np.load(work / "train.npy", mmap_mode="r"), np.load(work / "held_out.npy")
    optimizer = new_optimizer(model, bag)
    steps, first, began = tokens // (SEQUENCE * BATCH), load_checkpoint(work, model, bag, optimizer), time.time()
    for step, batch in zip(range(first, steps), batches(stream, first), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        next_token, words = losses_of(model, bag, batch)
        (next_token + BAG_SHARE * words).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = step + 1
        if done % CHECKPOINT_EVERY == 0 or done == steps:
            save_checkpoint(work, model, bag, optimizer, done)
        if done % 50 == 0 or done == steps:
            rate = (done - first) * SEQUENCE * BATCH / (time.time() - began)
            entry = {
                "step": done,
                "of": steps,
                "loss": round(next_token.item(), 4),
                "words": round(words.item(), 4),
                "tokens_per_second": round(rate),
            }
            if done % EVALUATE_EVERY == 0 or done == steps:
                entry["held_out_loss"] = round(held_out_loss(model, bag, held_out), 4)
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
    bag = BagOfWords.for_stream(np.load(args.work / "train.npy"), len(tokenizer), WIDTH, tokenizer.eos_token_id)
    if args.publish:
        load_checkpoint(args.work, model, bag, new_optimizer(model, bag))
        publish(args.work, model, tokenizer, args.publish)
    else:
        train(args.work, model, bag, args.tokens)


if __name__ == "__main__":
    main()
