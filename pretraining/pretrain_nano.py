"""Pretrain `nano`, the small causal language model that ships with fenlei, on plain text.

    python pretraining/pretrain_nano.py --corpus CORPUS --work DIR [--donor MODEL_FOLDER] [--tokens 12300000]
    python pretraining/teacher.py --data DIR/data --donor MODEL_FOLDER       # from then on the donor's vectors are learned as well
    python pretraining/pretrain_nano.py --work DIR --tokens 20000000
    python pretraining/pretrain_nano.py --work DIR --tokens 0 --publish src/fenlei/models/nano/weights
    python pretraining/pretrain_nano.py --corpus CORPUS --work DIR --tokenizer NANO --start NANO    # goes on from published weights

CORPUS: a text file (.txt or .xz), one paragraph or headline a line, documents parted by blank lines. DIR holds data/ (see corpus.py),
checkpoint and log.jsonl. Started again with the same DIR it goes on from the last checkpoint; with more tokens than before, the learning
rate rises again to where the longer schedule has it. On a GPU the steps are larger, and --seconds in the place of --tokens lets
the schedule follow the clock; gpu.sh does all of it there, for several variants at once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from batches import Batches
from borrow import borrowed_embeddings
from corpus import prepare
from distillation import taught_pieces
from objectives import SHARES, Objectives, held_out_loss
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCAB, CONTEXT = 8192, 2048
SEQUENCE = 256
WARM_UP_STEPS, FINAL_RATE_SHARE, WEIGHT_DECAY = 100, 0.05, 0.1
LOG_EVERY, EVALUATE_EVERY = 50, 400
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Shape:
    """Of the network."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2


@dataclass(frozen=True)
class Pace:
    """How much a step learns from, and how fast."""

    rows: tuple[int, int, int]
    """Windows of the stream, lines, pairs."""
    peak_rate: float
    checkpoint_every: int


PACES = {"cpu": Pace((8, 64, 32), 1.5e-3, 100), "cuda": Pace((128, 512, 256), 2.5e-3, 2000)}


@dataclass(frozen=True)
class Budget:
    """When it is enough: tokens of the running stream, or seconds."""

    tokens: int
    seconds: float | None
    tokens_of_step: int

    def spent(self, steps: int, seconds: float) -> float:
        """Share of the budget, from 0 on; with 1 it is spent."""
        if self.seconds is not None:
            return seconds / self.seconds
        whole = self.tokens // self.tokens_of_step
        return steps / whole if whole else 1.0


def build(tokenizer: PreTrainedTokenizerFast, donor: str | None, shape: Shape = Shape(), start: str | None = None) -> Qwen3ForCausalLM:
    """A fresh network, with the donor's embeddings if there is one; or the one of the model folder `start`."""
    if start:
        return Qwen3ForCausalLM.from_pretrained(start, dtype=torch.float32)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.width // shape.heads,
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
            model.get_input_embeddings().weight.copy_(borrowed_embeddings(donor, tokenizer, shape.width))
    return model


def learned_from(data: Path, vocabulary: int, width: int, shares: dict[str, float], device: torch.device) -> tuple[Objectives, Batches]:
    """The objectives that the folder has data for, and their batches, on the device."""
    stream, pieces, taught = np.load(data / "train.npy"), np.load(data / "pieces.npy"), taught_pieces(data)
    if not shares["teacher"]:
        taught = None
    numbers, vectors = taught or (None, None)
    objectives = Objectives(stream, vectors, vocabulary, width, shares).to(device)
    return objectives, Batches(stream, pieces, numbers, PACES[device.type].rows, SEQUENCE, device)


def learning_rate(peak: float, step: int, spent: float) -> float:
    """Linear warm-up, then half a cosine over the budget."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, spent)))
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine)


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
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


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


def train(
    work: Path, data: Path, model: Qwen3ForCausalLM, objectives: Objectives, batches: Batches, budget: Budget, rate: float | None = None
) -> None:
    """Trains from the last checkpoint on until the budget is spent, and leaves a checkpoint. `rate`: the peak one, else the pace's."""
    pace, held_out = PACES[model.device.type], np.load(data / "held_out.npy")
    optimizer = new_optimizer(model, objectives)
    first, began = load_checkpoint(work, model, objectives, optimizer), time.time()
    step = first
    if budget.spent(step, 0.0) >= 1:
        return
    for batch in batches.after(first):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(rate or pace.peak_rate, step, budget.spent(step, time.time() - began))
        losses = objectives.add_gradients(model, batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        over = budget.spent(step, time.time() - began) >= 1
        if step % pace.checkpoint_every == 0 or over:
            save_checkpoint(work, model, objectives, optimizer, step)
        if step % LOG_EVERY == 0 or over:
            entry = {"step": step, **{name: round(loss.item(), 4) for name, loss in losses.items()}}
            seconds = time.time() - began
            entry |= {"seconds": round(seconds, 1), "tokens_per_second": round((step - first) * budget.tokens_of_step / seconds)}
            if step % EVALUATE_EVERY == 0 or over:
                entry["held_out_loss"] = round(held_out_loss(model, held_out, SEQUENCE, pace.rows[0]), 4)
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            print(entry, flush=True)
        if over:
            return


def publish(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """The weights in float16 (half the size; their magnitudes lie far inside its range) with tokenizer, as a stock folder."""
    model.to("cpu", torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def given_shares(words: list[str]) -> dict[str, float]:
    """SHARES with those that are given as name=number in their places."""
    given = {name: float(share) for name, share in (word.split("=") for word in words)}
    if unknown := given.keys() - SHARES.keys():
        raise SystemExit(f"no such share: {', '.join(sorted(unknown))}; there are {', '.join(SHARES)}")
    return SHARES | given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="needed only the first time")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the prepared data, if not in the work folder")
    parser.add_argument("--tokenizer", type=Path, help="a model folder whose tokenizer is kept")
    parser.add_argument("--donor", help="a model folder whose embeddings start ours")
    parser.add_argument("--start", help="a model folder whose weights, and shape, ours start from")
    parser.add_argument("--tokens", type=int, default=12_300_000, help="0: only prepare, and publish if asked to")
    parser.add_argument("--seconds", type=float, help="in the place of --tokens")
    parser.add_argument("--peak-rate", type=float, help="learning rate, else that of the device's pace")
    parser.add_argument("--shape", type=int, nargs=4, metavar=("WIDTH", "LAYERS", "HEADS", "KEY_VALUE_HEADS"))
    parser.add_argument("--shares", nargs="*", default=[], metavar="NAME=NUMBER", help=f"weights of the losses, else {SHARES}")
    parser.add_argument("--publish", type=Path)
    args = parser.parse_args()
    data, shape = args.data or args.work / "data", Shape(*args.shape) if args.shape else Shape()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.corpus:
        tokenizer = prepare(args.corpus, data, VOCAB, CONTEXT, args.tokenizer)
    else:
        tokenizer = AutoTokenizer.from_pretrained(data / "tokenizer")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fresh = not (args.work / "checkpoint.safetensors").exists()
    torch.backends.cuda.enable_cudnn_sdp(False)  # it would make a plan for each shape that it meets
    model = build(tokenizer, args.donor if fresh else None, shape, args.start).to(device)
    objectives, batches = learned_from(data, len(tokenizer), model.config.hidden_size, given_shares(args.shares), device)
    budget = Budget(args.tokens, args.seconds, PACES[device.type].rows[0] * SEQUENCE)
    train(args.work, data, model, objectives, batches, budget, args.peak_rate)
    if args.publish:
        publish(model, tokenizer, args.publish)


if __name__ == "__main__":
    main()
