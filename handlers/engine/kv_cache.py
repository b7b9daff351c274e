"""The key-value cache: one row of every buffer for each slot, mapped once.

Knows shapes, not contents: the graph's GroupQueryAttention nodes read and write the buffers in
place, and a slot's past length alone says what of it is valid, so a freed slot needs no
clearing. All positions are kept, also in models whose attention has a window. Owned by the session.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.errors import ArtifactError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CacheTensor(msgspec.Struct, frozen=True):
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
        """Raises SettingsError when there is no memory for so many slots of this capacity."""
        self.tensors = tensors
        self.capacity = capacity
        """Tokens in a slot."""
        shapes = [(slots, tensor.heads, capacity, tensor.head_dim) for tensor in tensors]
        try:
            self._buffers = [_untouched(shape) for shape in shapes]
        except (OSError, MemoryError, OverflowError):
            raise SettingsError(
                f"KINDLING_SLOTS x KINDLING_CONTEXT_LENGTH, {slots:,} x {capacity:,} tokens, take "
                f"{sum(map(_size, shapes)):,} bytes, which are not to be had: lower one of them."
            ) from None
        self._attached: list[NDArray[np.float32]] = []

    def attach(self, values: NDArray[np.float32], tokens: int) -> None:
        """Makes a slot after the last, only to be copied from, of [heads, tokens, head_dim] each.

        `values`: all tensors, one after the other. Raises ArtifactError when they are not as many.
        """
        shapes = [(tensor.heads, tokens, tensor.head_dim) for tensor in self.tensors]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        if ends[-1] != values.size:
            raise ArtifactError(
                f"The baked prefix has {values.size:,} values where {tokens:,} tokens of this "
                f"graph have {ends[-1]:,}. Export the model again."
            )
        parts = np.split(values, ends[:-1])
        self._attached = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def slot(self, number: int) -> list[NDArray[np.float32]]:
        """One slot of every buffer, the attached one too: views [heads, positions, head_dim]."""
        if number == len(self._buffers[0]):
            return self._attached
        return [buffer[number] for buffer in self._buffers]

    def rows(self, first: int, count: int) -> list[NDArray[np.float32]]:
        """The slots [first : first + count] of every buffer: views, contiguous."""
        return [buffer[first : first + count] for buffer in self._buffers]

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        """Copies the positions [start : stop] of every buffer from one slot to another."""
        for to, of in zip(self.slot(target), self.slot(source), strict=True):
            to[:, start:stop] = of[:, start:stop]


def _size(shape: tuple[int, ...]) -> int:
    """In bytes."""
    return math.prod(shape) * np.dtype(np.float32).itemsize


def _untouched(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros that cost memory page by page, as they are written.

    Not np.zeros, which asks for huge pages: the first prompt in a slot then waits for 2 MB to
    be cleared for every head of every layer. SmolLM2-135M, 4 slots of 2048: 300 to 430 ms
    instead of 55, and 368 MB resident instead of 249.
    """
    memory = mmap.mmap(-1, _size(shape))
    with contextlib.suppress(OSError):  # a kernel without huge pages does not know the advice
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(shape)
