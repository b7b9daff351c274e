"""The key-value cache: one row of every buffer for each slot, allocated once.

Knows shapes, not contents: the graph's GroupQueryAttention nodes read and write the buffers in
place, and a slot's past length alone says what of it is valid, so a freed slot needs no
clearing. Owned by the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """One layer's keys or values, as the graph declares them."""

    past: str
    """Name of the graph's input."""
    present: str
    """Name of the graph's output, which is the same memory."""
    heads: int
    head_dim: int


class KvCache:
    """Buffers float32 [slots, heads, capacity, head_dim], one for each of the graph's tensors."""

    def __init__(self, tensors: tuple[CacheTensor, ...], *, slots: int, capacity: int) -> None:
        self.tensors = tensors
        self.capacity = capacity
        """Tokens in a slot."""
        # np.zeros is calloc: a page costs memory once a token is written to it, not before.
        self._buffers = [
            np.zeros((slots, tensor.heads, capacity, tensor.head_dim), np.float32)
            for tensor in tensors
        ]

    def rows(self, first: int, count: int) -> list[NDArray[np.float32]]:
        """The slots [first : first + count] of every buffer: views, contiguous."""
        return [buffer[first : first + count] for buffer in self._buffers]
