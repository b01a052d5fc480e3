"""A network over more labels than the run it comes from: every weight of the run, and new rows in the last layer of its head.

The new rows first learn alone, over states that are what they were (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features: a head
that starts at random would drag the network along).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fenlei.errors import ArtifactError
from fenlei.models.head import HeadMethod
from fenlei.models.quantized import Int8Linear

DECAY = 1e-3
"""Half of it times the squared new weights is added to the mean loss of a row: separable states have no best head without."""
MOST_ITERATIONS = 100


@torch.no_grad()
def take_over(method: nn.Module, run: nn.Module, known: int, labels: int) -> tuple[str, ...]:
    """Copies the weights of `run` over `known` labels into `method` over `labels`; the names of those that have rows for the new ones.

    ArtifactError where a weight is missing or fits neither way.
    """
    theirs, grown = run.state_dict(), []
    own = method.state_dict()
    # Frozen below a head, and kept in 8 bits alone: both have it from the base model.
    eight_bit = {name for name, module in method.named_modules() if isinstance(module, Int8Linear)}
    odd = sorted(name for name in own.keys() ^ theirs.keys() if name.rpartition(".")[0] not in eight_bit)
    for name, weight in own.items():
        stored = theirs.get(name, weight)
        if not weight.numel():  # the same below adapters
            continue
        if stored.shape == weight.shape:
            weight.copy_(stored)
        elif stored.shape == (known, *weight.shape[1:]) and len(weight) == labels:
            weight[:known].copy_(stored)
            grown.append(name)
        else:
            odd.append(name)
    if odd:
        raise ArtifactError(f"the run's weights do not fit its own description, among them {odd[0]!r}; restore its folder, or train again")
    return tuple(grown)


def settle_new_rows(
    method: HeadMethod, grown: Sequence[str], states: np.ndarray, label_ids: np.ndarray, known: int, prior: torch.Tensor
) -> None:
    """Fits the new rows of the weights `grown` to pooled states (rows, hidden) and label_ids (rows,); nothing else moves.

    The least cross-entropy over all labels of logits that have gained `prior` (labels,), by L-BFGS: with all else fixed the problem is
    convex.
    """
    weights = [
        weight for name, weight in method.named_parameters() if name in grown and weight.requires_grad
    ]  # PEFT keeps a copy that rests
    pooled, gold = torch.from_numpy(np.array(states)).to(method.device), torch.from_numpy(label_ids).to(method.device)
    with torch.no_grad():
        for weight in weights:
            weight[known:] = 0.0
    hooks = [weight.register_hook(lambda gradient: torch.cat([torch.zeros_like(gradient[:known]), gradient[known:]])) for weight in weights]
    optimiser = torch.optim.LBFGS(weights, max_iter=MOST_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        method.zero_grad()
        decay = torch.stack([(weight[known:] ** 2).sum() for weight in weights]).sum()
        value = torch.nn.functional.cross_entropy(method.classify(pooled) + prior.to(method.device), gold) + 0.5 * DECAY * decay
        torch.autograd.backward([value], inputs=weights)
        return value.detach()

    with torch.enable_grad():
        optimiser.step(loss)
    for hook in hooks:
        hook.remove()
    method.zero_grad()
