"""Short steps on a GPU, recorded once and replayed: launching their thousands of small kernels takes longer than computing them.

A CUDA graph is a run of kernels over fixed memory. Forward and backward pass over a batch of one shape are recorded as one graph each; the
loss between them is computed as ever. Rows are padded to a multiple of LENGTH_STEP tokens, which causal attention never looks at, so that
few shapes occur. All graphs add to the same gradients and share the memory of what lies between the passes: only one is under way at once.

Nothing is taken on trust: a pass is rehearsed first, where whatever would wait for the GPU (and cannot be recorded) is an error, and what
the graphs give must be what the rehearsal gave. Where it is not, or memory is short, steps are launched as before, and the user is told.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.errors import first_line
from fenlei.models.backbone import is_decoder
from fenlei.models.head import HeadMethod
from fenlei.text.batches import Batch, DocumentBatch
from fenlei.training.ranks import Ranks
from fenlei.training.setup import Setup

MOST_WORK = 2e12
"""Weights times tokens of a pass. Above, kernels compute longer than they take to launch: half a billion weights and 4,096 tokens."""
LENGTH_STEP = 8
TIMES_BEFORE = 2
"""Passes over a shape before it is recorded, which costs a few of them."""
MOST_SHAPES = 32
TOLERANCE = 0.02
"""Between rehearsal and replay, of the largest number: kernels that add in another order each time round differently."""

Pass = Callable[[], None]


class Recorder(Protocol):
    """What makes graphs."""

    def rehearse(self, work: Pass) -> None:
        """Does `work`; RuntimeError where it cannot be recorded."""

    def record(self, work: Pass) -> Pass:
        """What does `work` again, over the same memory."""


class CudaGraphs:
    """Records on a stream of its own, as CUDA asks."""

    def __init__(self, device: torch.device) -> None:
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def rehearse(self, work: Pass) -> None:
        now = torch.cuda.current_stream()
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream), never_waiting():
            work()
        now.wait_stream(self._stream)

    def record(self, work: Pass) -> Pass:
        graph = torch.cuda.CUDAGraph()
        # The outer stream is left even where the recording cannot be ended.
        with torch.cuda.stream(self._stream), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()
        return graph.replay


@contextmanager
def never_waiting() -> Iterator[None]:
    """Within it, whatever waits for a GPU is a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def recorder_for(setup: Setup, ranks: Ranks) -> Recorder | None:
    """What records short steps, where that is known to be right: of decoders that leave nothing to chance, on one GPU, in bfloat16, with
    memory to spare.
    """
    options, tuning = setup.config.optimization, setup.config.model.tuning
    decoder = isinstance(setup.method, HeadMethod) and is_decoder(setup.method.stock) and not _drops(setup.method.stock)
    simple = decoder and tuning in ("lora", "full") and not options.gradient_checkpointing and options.memory is None
    there = setup.device.type == "cuda" and ranks.world == 1 and setup.autocast != torch.float16
    return CudaGraphs(setup.device) if simple and there else None


def _drops(network: PreTrainedModel) -> bool:
    """Whether training drops out anything: no two passes would be the same."""
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
    return layers or bool(getattr(network.config.get_text_config(), "attention_dropout", 0.0))


class RecordedPasses:
    """Logits of batches, through graphs where their shape has come before."""

    def __init__(
        self, read: Callable[[Batch], torch.Tensor], network: nn.Module, pad_id: int, recorder: Recorder, tell: Callable[[str], None]
    ) -> None:
        """`read` gives the logits of a batch, and waits for the GPU nowhere."""
        self._read, self._pad_id = read, pad_id
        self._recorder: Recorder | None = recorder
        self._tell = tell
        self._learning = [weight for weight in network.parameters() if weight.requires_grad]
        self._gradients: list[torch.Tensor] = []
        self._most_tokens = int(MOST_WORK / sum(weight.numel() for weight in network.parameters()))
        self._came: Counter[tuple[int, ...]] = Counter()
        self._shapes: dict[tuple[int, ...], _Shape] = {}
        # The graphs see to the gradients of the weights themselves: this is what makes autograd call for them.
        self._anchor = torch.zeros((), requires_grad=True)

    def logits(self, batch: Batch | DocumentBatch) -> torch.Tensor | None:
        """Float32 (rows, labels); None for what is not to be replayed, or not yet."""
        if isinstance(batch, DocumentBatch) or self._recorder is None:
            return None
        batch = padded(batch, self._pad_id)
        key = tuple(batch.input_ids.shape)
        if batch.input_ids.numel() > self._most_tokens:
            return None
        if key not in self._shapes and not self._recorded(key, batch):
            return None
        self._lend_gradients()
        return cast(torch.Tensor, cast(Any, _Replayed).apply(self._anchor, self._shapes[key], batch))

    def stop(self) -> None:
        """Gives back the memory of all graphs, and their gradients: from now on weights have their own."""
        self._recorder = None
        self._shapes.clear()
        self._gradients = []

    def _recorded(self, key: tuple[int, ...], batch: Batch) -> bool:
        """Whether the shape could be recorded, and was to be."""
        self._came[key] += 1
        begun = any(weight.grad is not None for weight in self._learning)  # the trial would spoil what the step has added up
        if self._came[key] <= TIMES_BEFORE or len(self._shapes) == MOST_SHAPES or begun:
            return False
        assert self._recorder is not None
        try:
            self._gradients = self._gradients or [torch.zeros_like(weight) for weight in self._learning]
            self._shapes[key] = _Shape(self._read, batch, self._learning, self._gradients, self._recorder)
        except RuntimeError as error:
            self.stop()
            self._tell(f"short steps are launched kernel by kernel, as they cannot be replayed: {first_line(error)}")
        return key in self._shapes

    def _lend_gradients(self) -> None:
        """Makes the graphs' gradients those of the weights, with what a pass without graphs has added up in this step."""
        fresh = [own for weight, own in zip(self._learning, self._gradients, strict=True) if weight.grad is None]
        if fresh:
            torch._foreach_zero_(fresh)
        for weight, own in zip(self._learning, self._gradients, strict=True):
            if weight.grad is not own:
                if weight.grad is not None:
                    own.copy_(weight.grad)
                weight.grad = own


class _Shape:
    """The graphs of one shape, and the memory that they read from and write to."""

    def __init__(
        self,
        read: Callable[[Batch], torch.Tensor],
        batch: Batch,
        learning: Sequence[torch.Tensor],
        gradients: Sequence[torch.Tensor],
        recorder: Recorder,
    ) -> None:
        self._read, self._learning, self._gradients = read, learning, gradients
        self._batch = batch.to(learning[0].device)
        self._logits = self._of_logits = torch.empty(0)
        sizes: list[torch.Tensor] = []
        recorder.rehearse(lambda: sizes.extend(self._rehearse()))
        self._forward = recorder.record(self._run_forward)
        self._backward = recorder.record(self._run_backward)
        self._logits = self._logits.detach()  # what lies between the passes is the next shape's too
        self._check(sizes)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Float32 (rows, labels)."""
        for own, given in ((self._batch.input_ids, batch.input_ids), (self._batch.attention_mask, batch.attention_mask)):
            own.copy_(given.pin_memory() if own.is_cuda else given, non_blocking=True)
        self._forward()
        return self._logits.detach().clone()

    def backward(self, of_logits: torch.Tensor) -> None:
        """Adds to the gradients."""
        self._of_logits.copy_(of_logits)
        self._backward()

    def _rehearse(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and how large each weight's gradient is."""
        logits = self._read(self._batch)
        self._of_logits = torch.linspace(-1, 1, logits.numel(), device=logits.device).view_as(logits)
        found = torch.autograd.grad(logits, self._learning, self._of_logits, allow_unused=True)
        return logits.detach(), _sizes([torch.zeros_like(w) if one is None else one for w, one in zip(self._learning, found, strict=True)])

    def _run_forward(self) -> None:
        self._logits = self._read(self._batch)

    def _run_backward(self) -> None:
        found = torch.autograd.grad(self._logits, self._learning, self._of_logits, allow_unused=True)
        used = [(own, one) for own, one in zip(self._gradients, found, strict=True) if one is not None]
        torch._foreach_add_([own for own, _ in used], [one for _, one in used])

    def _check(self, rehearsed: Sequence[torch.Tensor]) -> None:
        torch._foreach_zero_(list(self._gradients))
        self._forward()
        self._backward()
        for then, now in zip(rehearsed, (self._logits.detach(), _sizes(self._gradients)), strict=True):
            if not bool((then - now).abs().max() <= TOLERANCE * then.abs().max()):
                raise RuntimeError("replayed, a step gives other numbers than before")


class _Replayed(torch.autograd.Function):
    """A shape's graphs, as autograd calls them."""

    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, shape: _Shape, batch: Batch) -> torch.Tensor:
        ctx.shape = shape
        return shape.forward(batch)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, None]:
        ctx.shape.backward(gradients[0])
        return None, None, None


def padded(batch: Batch, pad_id: int) -> Batch:
    """The batch, its rows as long as the next multiple of LENGTH_STEP."""
    more = -batch.input_ids.shape[1] % LENGTH_STEP
    ids, mask = (nn.functional.pad(one, (0, more), value=fill) for one, fill in ((batch.input_ids, pad_id), (batch.attention_mask, 0)))
    return Batch(ids, mask, batch.questions)


def _sizes(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The norm of each, float32 (tensors,)."""
    return torch.stack(torch._foreach_norm(list(tensors)))
