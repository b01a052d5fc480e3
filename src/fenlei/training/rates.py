"""What learns at a rate of its own: the attention over windows, beside a head that begins where it is to end.

Such a head goes on in small steps (training/solved_head.py). The attention begins with every window alike, and has its whole way to go.
"""

from __future__ import annotations

from typing import Any

from torch import nn

ATTENTION_RATE = 10.0
"""Times the rate of a head that begins solved: what a head and its attention learn at where both begin at random."""


def with_own_rate(groups: list[dict[str, Any]], part: nn.Module, times: float) -> list[dict[str, Any]]:
    """An optimiser's `groups` with the parameters of `part` in groups of their own, at `times` the rate of the rest; the rest first.

    Groups that end up without parameters are dropped.
    """
    own = set(map(id, part.parameters()))
    rest = [{**group, "params": [one for one in group["params"] if id(one) not in own]} for group in groups]
    apart = [{**group, "params": [one for one in group["params"] if id(one) in own], "lr": group["lr"] * times} for group in groups]
    return [group for group in (*rest, *apart) if group["params"]]
