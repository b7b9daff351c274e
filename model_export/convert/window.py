"""Reads the width of a sliding window off a mask function of transformers.

A mask is judged by what it lets through, not by its name. Called by attention.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Window:
    """What a layer may see: the last `size` tokens with the query's own, None for all."""

    size: int | None


def window_of(mask_function: Callable[..., torch.Tensor], context_length: int) -> Window | None:
    """The window that a mask function of transformers describes, None if it is not one.

    `mask_function(batch, head, query, key)` says which keys a query sees. The last query of the
    context shows the width; the queries where a window begins, fills and slides must agree.
    """
    keys = torch.arange(context_length)
    last = context_length - 1

    def seen(query: int) -> torch.Tensor:
        zero = torch.tensor(0)
        allowed = mask_function(zero, zero, torch.tensor(query), keys)
        return allowed.broadcast_to(keys.shape)

    width = int(seen(last).sum())
    queries = {0, 1, width - 1, width, width + 1, last // 2, last}
    for query in (query for query in queries if 0 <= query <= last):
        if not torch.equal(seen(query), (keys <= query) & (keys > query - width)):
            return None
    return Window(None if width == context_length else width)
