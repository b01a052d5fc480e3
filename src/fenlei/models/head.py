"""The head method: a backbone, the state of the last real token, and a head in float32.

Decoders are run without an attention mask: causal attention never lets a real token see what follows it, so padding on the right cannot
matter, and the mask-free path is the fast one. On a CPU the padding is left out as well (models/packing.py). The last real token comes
from the batch's mask, never from the pad id: a text may well end in the token that pads. Encoders (BERT) keep their own pooling and head,
and get the mask; of most, a head that learns alone reads the state of the first token (models/encoders.py).

Of documents that are read in windows, the states of the windows are joined before the head; of encoders, whose heads take no joined state,
the logits of the windows.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from fenlei.errors import ConfigError, first_line
from fenlei.models.attention import is_plainly_causal, sees_all, without_masks
from fenlei.models.backbone import head_modules, is_decoder, recomputes_activations
from fenlei.models.encoders import classify_first, first_states
from fenlei.models.last_block import only_read_at, spare_last_block
from fenlei.models.merging import Merging
from fenlei.models.method import Output
from fenlei.models.packing import Packing, rows_packed
from fenlei.models.passages import Pooling, WindowStates, read_windows
from fenlei.text.batches import Batch, DocumentBatch, sent

POOLED_BY = 2
"""Raised whenever `HeadMethod.pool` comes to say something else of the same weights and tokens: what was kept of it is computed anew."""


class MlpHead(nn.Module):
    """hidden -> hidden -> labels with tanh between, float32."""

    def __init__(self, hidden: int, labels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """(rows, hidden) -> (rows, labels)."""
        return cast(torch.Tensor, self.out(torch.tanh(self.dense(pooled))))


class HeadMethod(nn.Module):
    """A stock classification network, bare or inside a PeftModel, called on batches.

    `pooling` joins the windows of documents; `merging` makes labels of several outputs.
    """

    def __init__(self, network: nn.Module, pad_id: int, pooling: Pooling | None = None, *, merging: Merging | None = None) -> None:
        super().__init__()
        self.network = network
        self.pad_id = pad_id
        self.pooling = pooling
        self.merging = merging
        self._known = int(self.stock.config.get_text_config().vocab_size)
        if not is_decoder(self.stock):
            for module in head_modules(self.stock).values():
                module.forward = _in_float32(module.forward)
        else:
            spare_last_block(self.stock)

    def train(self, mode: bool = True) -> HeadMethod:
        """As ever; but a backbone that learns nothing drops nothing out, which would only blur what its head learns from."""
        super().train(mode)
        heads = head_modules(self.stock).values()
        of_heads = {id(weight) for head in heads for weight in head.parameters()}
        if mode and not any(weight.requires_grad for weight in self.stock.base_model.parameters() if id(weight) not in of_heads):
            self.stock.base_model.eval()
            for head in heads:
                head.train()
        return self

    @property
    def stock(self) -> PreTrainedModel:
        """The transformers model itself; LoRA layers, if any, sit inside it."""
        network = cast(Any, self.network)
        return cast(PreTrainedModel, network.get_base_model() if hasattr(network, "get_base_model") else network)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, batch: Batch | DocumentBatch | WindowStates | torch.Tensor) -> Output:
        """What the network says of a batch, or of states that a frozen backbone has pooled before, float32 (rows, hidden)."""
        said = self._read(batch)
        return said if self.merging is None else replace(said, logits=self.merging(said.logits))

    def _read(self, batch: Batch | DocumentBatch | WindowStates | torch.Tensor) -> Output:
        if isinstance(batch, torch.Tensor):
            return Output(self.classify(batch), batch if is_decoder(self.stock) else None)
        if isinstance(batch, WindowStates):
            return self._classify_joined(sent(batch.states, self.device), sent(batch.counts, self.device))
        if isinstance(batch, DocumentBatch):
            return self._read_documents(batch)
        return self._decode(batch) if is_decoder(self.stock) else self._encode(self._taken(batch))

    def pool(self, batch: Batch) -> torch.Tensor:
        """The state of the last real token, of an encoder that of the first, float32 (rows, hidden)."""
        batch = self._taken(batch)
        if not is_decoder(self.stock):
            return first_states(self.stock, self._inputs(batch))
        longest = batch.input_ids.shape[1]
        if self.packs(longest) and not batch.attention_mask.all():
            return self._pool_packed(batch.input_ids, Packing.of(batch.attention_mask))
        mask = batch.attention_mask if sees_all(self.stock.config) else None
        last = batch.attention_mask.sum(dim=1) - 1
        places = (torch.arange(len(last), device=self.device), last)
        with only_read_at(places, batch.input_ids.shape), without_masks(self.stock, longest):
            states = self.stock.base_model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).last_hidden_state
        return cast(torch.Tensor, states[places].float())

    def packs(self, longest: int, device: torch.device | None = None) -> bool:
        """Whether rows of up to `longest` tokens are read without their padding on `device` (None: where the network is now).

        Not on a GPU, which would be waited for, nor where activations are computed anew in the backward pass, which knows of no rows.
        """
        again = self.training and recomputes_activations(self.stock)
        on_cpu = (device or self.device).type == "cpu"
        return is_decoder(self.stock) and on_cpu and not again and is_plainly_causal(self.stock.config, longest)

    def _pool_packed(self, input_ids: torch.Tensor, packing: Packing) -> torch.Tensor:
        ids, positions, last = (one.unsqueeze(0) for one in (packing.packed(input_ids), packing.positions, packing.last))
        places = (torch.zeros_like(last[0]), last[0])
        with only_read_at(places, ids.shape), without_masks(self.stock, packing.longest), rows_packed(packing):
            states = self.stock.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        return cast(torch.Tensor, states[places].float())

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """The head alone, of what `pool` says: float32 (rows, hidden) -> (rows, labels). See `reads_pooled`."""
        with torch.autocast(self.device.type, enabled=False):  # not pooled.device: kept states come from main memory
            if not is_decoder(self.stock):
                return classify_first(self.stock, pooled.to(self.device))
            return cast(torch.Tensor, cast(Any, self.stock).score(pooled.to(self.device)).float())

    @torch.inference_mode()
    def reads_pooled(self, batch: Batch) -> bool:
        """Whether the head reads of the backbone no more than `pool` says. Of decoders it does not; of encoders the rows of `batch` tell:
        some read the mean of all states (ModernBERT may), or the last.
        """
        if is_decoder(self.stock):
            return True
        self.eval()
        batch = self._taken(batch)
        try:
            states = self.pool(batch)
            same = [(self.classify(states), self._encode(batch).logits)]
            if self.pooling is not None:
                same.append((states, self._states_and_logits(batch)[:, : states.shape[1]]))
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # a forward pass that looks for more, and misses it
            return False
        return all(one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in same)

    def _read_documents(self, batch: DocumentBatch) -> Output:
        counts = sent(batch.counts, self.device)
        if is_decoder(self.stock):
            return self._classify_joined(read_windows(batch, self.pool, self.device), counts)
        labels = cast(int, self.stock.config.num_labels)
        said = read_windows(batch, self._states_and_logits, self.device)
        logits, weights = self._joined(said[:, :-labels], said[:, -labels:], counts)
        return Output(logits, None, weights)

    def _classify_joined(self, states: torch.Tensor, counts: torch.Tensor) -> Output:
        if not is_decoder(self.stock):
            logits, weights = self._joined(states, self.classify(states), counts)
            return Output(logits, None, weights)
        pooled, weights = self._joined(states, states, counts)
        return Output(self.classify(pooled), pooled, weights)

    def _joined(self, states: torch.Tensor, values: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        assert self.pooling is not None, "documents need something that joins their windows"
        with torch.autocast(states.device.type, enabled=False):
            return cast("tuple[torch.Tensor, torch.Tensor | None]", self.pooling(states, values, counts))

    def _states_and_logits(self, batch: Batch) -> torch.Tensor:
        """An encoder's state of the first token beside its logits, float32 (rows, hidden + labels)."""
        batch = self._taken(batch)
        answer = self.stock(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
        return torch.cat([answer.hidden_states[-1][:, 0].float(), answer.logits.float()], dim=1)

    def _decode(self, batch: Batch) -> Output:
        pooled = self.pool(batch)
        return Output(self.classify(pooled), pooled)

    def _encode(self, batch: Batch) -> Output:
        return Output(self.stock(**self._inputs(batch)).logits.float(), None)

    def _taken(self, batch: Batch) -> Batch:
        """The batch where the network is. A token that it has no row for is read as one that pads: some tokenizers know more than their
        model (Gemma 3: `<image_soft_token>`), a text may spell it, and a GPU asked for such a row answers no more.
        """
        batch = batch.to(self.device)
        return replace(batch, input_ids=batch.input_ids.masked_fill(batch.input_ids >= self._known, self.pad_id))

    def _inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What an encoder is given of a batch."""
        types = {"token_type_ids": batch.token_types} if batch.token_types is not None and self._reads_types else {}
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **types}

    @property
    def _reads_types(self) -> bool:
        """Whether the encoder has an embedding for which text of a pair a token is of."""
        takes = "token_type_ids" in inspect.signature(self.stock.forward).parameters
        return takes and getattr(self.stock.config, "type_vocab_size", 2) > 1


def install_head(network: PreTrainedModel, head: nn.Module) -> None:
    """Puts a copy of `head`, which maps float32 (rows, hidden) to (rows, labels), in the place of a decoder's linear one."""
    if not is_decoder(network):
        raise ConfigError("an encoder keeps its own head; use --head linear with it")
    head = copy.deepcopy(head)
    hidden, labels = network.config.get_text_config().hidden_size, network.config.num_labels
    try:
        given = tuple(head.float().eval()(torch.zeros(2, hidden)).shape)
    except RuntimeError as error:
        raise ConfigError(f"the head does not take float32 (rows, {hidden}): {first_line(error)}") from error
    if given != (2, labels):
        raise ConfigError(f"the head must give (rows, {labels}) for (rows, {hidden}); for 2 rows it gave {given}")
    network.score = head


def freeze_backbone(network: PreTrainedModel) -> None:
    """Leaves only the head to learn."""
    network.requires_grad_(False)
    for module in head_modules(network).values():
        module.requires_grad_(True)


def parameter_counts(module: nn.Module) -> tuple[int, int]:
    """Trainable and all parameters."""
    # bitsandbytes keeps two weights of 4 bits in a byte.
    packed = [2 if type(parameter).__name__ == "Params4bit" else 1 for parameter in module.parameters()]
    sizes = [(parameter.numel() * share, parameter.requires_grad) for parameter, share in zip(module.parameters(), packed, strict=True)]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)


def _in_float32(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`forward` on float32 copies of its inputs, outside autocast, whatever the backbone computes in."""

    def wrapped(states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return forward(states.float())

    return wrapped
