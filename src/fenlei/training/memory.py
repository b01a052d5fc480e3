"""What a training will take in memory at its peak, and the token budget with which that stays below a limit.

Nothing is guessed from the architecture's name: two short trial passes show what autograd keeps a token, whatever the network, the number
format and the adapters; the memory of the loaded network is read off the process (or the GPU).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fenlei.config import RunConfig, bytes_of
from fenlei.errors import ConfigError
from fenlei.models.attention import LONGEST_ROW
from fenlei.models.backbone import checkpoint_activations
from fenlei.models.devices import GPU_BATCH_TOKENS, tokens_at_once
from fenlei.models.head import HeadMethod
from fenlei.text.batches import Batch
from fenlei.training.defaults import USUAL_BATCH_TOKENS, Choice
from fenlei.training.process_memory import resident_bytes
from fenlei.training.ranks import is_one_of_many

ADAM_BYTES, GRADIENT_BYTES = 8, 4
"""Of a learning weight: two float32 moments, and its gradient."""
WIDE_TENSORS = 6
"""Tensors of the widest layer that are alive at once in a forward or backward pass beside what autograd keeps."""
SLACK = 1.1
"""The allocator's, on everything that comes and goes."""
LATER_BYTES = 150_000_000
"""What a process takes on its way beside tensors: libraries that the loop opens, scratch memory of the products, pages kept unused."""
LEAST_TOKENS = 512
"""Below this, recomputing activations costs less time than passes of so few tokens."""
GPU_SHARE = 0.9
"""Of a GPU's free memory, planned for: the allocator's pieces take the rest."""


@dataclass(frozen=True)
class Footprint:
    """What a training keeps in memory, in bytes."""

    resident: int
    """The process with the network loaded, and what it will load yet."""
    fixed: int
    """Gradients, the optimiser's moments, and weights cast for the products."""
    a_token: int
    """Of what goes through the network at once, in rows of the length that was tried."""
    prediction: int
    """Of evaluation; in main memory also of the saved network, whose files are read at the end."""

    def peak(self, tokens: int) -> int:
        """With `tokens` through the network at once."""
        training = self.fixed + int(SLACK * self.a_token * tokens)
        return self.resident + max(training, self.prediction)

    def tokens_within(self, limit: int) -> int:
        """The largest number of tokens whose peak stays below `limit`; 0 where none does."""
        room = limit - self.resident - self.fixed
        return max(0, int(room / (SLACK * self.a_token))) if self.peak(0) <= limit else 0


@dataclass(frozen=True)
class MemoryPlan:
    """How a training stays below a limit."""

    batch_tokens: int
    gradient_checkpointing: bool
    choice: Choice


def with_batch_tokens(
    config: RunConfig, method: nn.Module, longest_row: int, autocast: torch.dtype | None
) -> tuple[RunConfig, list[Choice]]:
    """The configuration with its token budget, below its `memory` where it has one; ConfigError where none is."""
    options = config.optimization
    tokens = options.batch_tokens or USUAL_BATCH_TOKENS
    if options.memory is None:
        chosen = options.batch_tokens is not None or config.model.tuning in ("frozen", "none")
        # Processes of one training must agree on it.
        if chosen or not isinstance(method, HeadMethod) or method.device.type != "cuda" or is_one_of_many():
            return config.replace(batch_tokens=tokens), []
        choice = gpu_batch_tokens(method, longest_row, autocast)
        return config.replace(batch_tokens=choice.value), [choice]
    if not isinstance(method, HeadMethod):
        raise ConfigError("memory: not planned for the generate method yet; use --batch-tokens and --gradient-checkpointing")
    plan = plan_memory(
        method, options.memory, batch_tokens=tokens, longest_row=longest_row,
        checkpointing=options.gradient_checkpointing, autocast=autocast,
    )  # fmt: skip
    return config.replace(batch_tokens=plan.batch_tokens, gradient_checkpointing=plan.gradient_checkpointing), [plan.choice]


def plan_memory(
    method: HeadMethod, limit: str, *, batch_tokens: int, longest_row: int, checkpointing: bool, autocast: torch.dtype | None
) -> MemoryPlan:
    """The largest token budget up to `batch_tokens`, without recomputing activations if that can be; `method` is set up accordingly.

    A row is never divided, so that the budget is at least `longest_row`. ConfigError where even that takes more than `limit`.
    """
    allowed = bytes_of(limit)
    assert allowed is not None
    footprint = measure_footprint(method, longest_row, autocast)
    if not checkpointing and footprint.tokens_within(allowed) < max(longest_row, min(LEAST_TOKENS, batch_tokens)):
        checkpoint_activations(method.stock, method.device)
        checkpointing = True
        footprint = measure_footprint(method, longest_row, autocast)
    room = footprint.tokens_within(allowed)
    if room < longest_row:
        raise ConfigError(
            f"memory {limit}: this training takes about {footprint.peak(longest_row) / 1e9:.1f} GB even with activations recomputed and "
            f"the {longest_row} tokens of the longest row at a time; allow more, shorten --max-length, keep fewer --layers, "
            "or take --tuning lora"
        )
    tokens = min(batch_tokens, room)
    expected = f"about {footprint.peak(max(tokens, longest_row)) / 1e9:.1f} GB at the peak, {limit} allowed"
    choice = Choice("batch_tokens", tokens, expected + (", activations recomputed" if checkpointing else ""))
    return MemoryPlan(tokens, checkpointing, choice)


def gpu_batch_tokens(method: HeadMethod, longest_row: int, autocast: torch.dtype | None) -> Choice:
    """The tokens that go through a network on a GPU at once: as many as its free memory holds, within reason."""
    device = method.device
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    room = measure_footprint(method, longest_row, autocast).tokens_within(int(GPU_SHARE * free))
    tokens = min(GPU_BATCH_TOKENS, max(room, longest_row, LEAST_TOKENS))
    return Choice("batch_tokens", tokens, f"tokens at once, {free / 1e9:.0f} GB of GPU memory hold {room:,}")


def measure_footprint(method: HeadMethod, longest_row: int, autocast: torch.dtype | None) -> Footprint:
    """From trial passes through `method`, which is on its device and as it will be trained.

    Where attention keeps every pair of tokens, a token takes the more the longer its row: on a CPU that is so up to LONGEST_ROW, and with
    some networks at any length, so that both are tried.
    """
    tried = {max(2, min(longest_row, LONGEST_ROW)), max(2, longest_row)}
    short = max(1, min(tried) // 4)
    few = _kept_by_autograd(method, short, autocast)
    kept_a_token = max(max(0, _kept_by_autograd(method, long, autocast) - few) // (long - short) for long in tried)
    weights = list(method.parameters())
    learning = sum(weight.numel() for weight in weights if weight.requires_grad)
    width = max((module.out_features for module in method.stock.base_model.modules() if isinstance(module, nn.Linear)), default=0)
    passing = WIDE_TENSORS * width * (autocast or weights[0].dtype).itemsize
    # A GPU has given the trained network back by then (training/finish.py).
    saved = 0 if method.device.type == "cuda" else sum(weight.numel() * weight.element_size() for weight in weights)
    return Footprint(
        resident=_resident(method.device),
        fixed=(ADAM_BYTES + GRADIENT_BYTES) * learning + max(0, few - kept_a_token * short),
        a_token=kept_a_token + passing,
        prediction=int(SLACK * passing * tokens_at_once(method.device)) + saved,
    )


def _kept_by_autograd(method: HeadMethod, tokens: int, autocast: torch.dtype | None) -> int:
    """Bytes that a forward pass over one row keeps for the backward pass, the network's own weights not counted."""
    own = {weight.untyped_storage().data_ptr() for weight in method.parameters()}
    kept: dict[int, int] = {}
    alive = []  # a freed storage's place may be given to the next: all are held until they are counted

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    ids = torch.full((1, tokens), method.pad_id, dtype=torch.int64)
    enabled = autocast is not None
    with (
        torch.random.fork_rng([method.device] if method.device.type == "cuda" else []),  # the trial must not change the training
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(method.device.type, autocast or torch.bfloat16, enabled=enabled),
    ):
        method.train()(Batch(ids, torch.ones_like(ids)))
    return sum(kept.values())


def _resident(device: torch.device) -> int:
    """Bytes taken now, of the GPU, else of the process, and what the latter will take besides."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return resident_bytes() + LATER_BYTES
