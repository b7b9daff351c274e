"""The key-value cache: one row of every buffer for each slot, mapped once.

The graph's nodes read and write the buffers in place, and a slot's past length alone says what of
it is valid, so a freed slot needs no clearing. All positions are kept, also in models whose
attention has a window. A recurrent layer keeps a state of fixed size instead, that after the slot's
last token.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.artifact.graph_contract import KEY_BLOCK
from handlers.errors import ArtifactError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Floats = NDArray[np.floating]


class CacheTensor(msgspec.Struct, frozen=True):
    """One cache input of the graph: what a layer keeps, and of which shape."""

    past: str
    """Name of the graph's input."""
    present: str
    """Name of the graph's output, which is the same memory."""
    dtype: DTypeLike
    """float32; of keys and values in a quantised graph float16."""
    sizes: tuple[int, ...]
    """Sizes of a slot: keys (heads, head_dim, KEY_BLOCK), values (heads, head_dim), states all."""
    block_size: int
    """Positions that lie side by side: KEY_BLOCK of keys, 1 of values; 0 of a state."""

    def shape(self, positions: int) -> tuple[int, ...]:
        """Returns a slot's shape: [heads, blocks, ...] for so many positions, or a state's."""
        if not self.block_size:
            return self.sizes
        heads, *rest = self.sizes
        return heads, -(-positions // self.block_size), *rest

    def slices(self, start: int, stop: int) -> tuple[slice, ...]:
        """Returns where the positions [start : stop] lie, in whole blocks."""
        if not self.block_size:
            return (slice(None),)
        return slice(None), slice(start // self.block_size, -(-stop // self.block_size))


class KvCache:
    """A buffer [slots, ...] for each of the graph's tensors."""

    def __init__(self, tensors: tuple[CacheTensor, ...], buffers: list[Floats]) -> None:
        """`buffers`: [slots, ...] of each tensor."""
        self.tensors = tensors
        self._buffers = buffers
        self._attached: list[Floats] = []

    @classmethod
    def allocate(cls, tensors: tuple[CacheTensor, ...], *, slots: int, capacity: int) -> KvCache:
        """Maps the buffers. Raises SettingsError when there is no memory for so many slots."""
        whole = -(-capacity // KEY_BLOCK) * KEY_BLOCK
        try:
            return cls(
                tensors,
                [_lazy_zeros((slots, *tensor.shape(whole)), tensor.dtype) for tensor in tensors],
            )
        except (OSError, MemoryError, OverflowError):
            size = slots * sum(_sizes(tensors, whole))
            raise SettingsError(
                f"KINDLING_SLOTS x KINDLING_CONTEXT_LENGTH, {slots:,} x {capacity:,} tokens, take "
                f"{size:,} bytes, which are not to be had: lower one of them."
            ) from None

    def part(self, tensors: tuple[CacheTensor, ...]) -> KvCache:
        """Returns a cache of some of these tensors, over the same memory.

        Raises ArtifactError for a tensor that is not among them.
        """
        own = dict(zip(self.tensors, self._buffers, strict=True))
        missing = [tensor.past for tensor in tensors if tensor not in own]
        if missing:
            raise ArtifactError(
                f"The draft model has the cache inputs {missing}, which the model has not, or in "
                f"another shape. Export the model again."
            )
        return KvCache(tensors, [own[tensor] for tensor in tensors])

    def attach(self, values: NDArray[np.uint8], tokens: int) -> None:
        """Makes a slot after the last, only to be copied from, with room for `tokens`.

        `values`: the bytes of all tensors, one after the other. Raises ArtifactError when they are
        not as many.
        """
        ends = np.cumsum(_sizes(self.tensors, tokens))
        if ends[-1] != values.size:
            raise ArtifactError(
                f"The baked prefix has {values.size:,} bytes where {tokens:,} tokens of this "
                f"graph take {ends[-1]:,}. Export the model again."
            )
        self._attached = [
            part.view(tensor.dtype).reshape(tensor.shape(tokens))
            for part, tensor in zip(np.split(values, ends[:-1]), self.tensors, strict=True)
        ]

    def rows(self, first: int, count: int) -> list[Floats]:
        """Returns the slots [first : first + count] of every buffer: views, contiguous."""
        return [buffer[first : first + count] for buffer in self._buffers]

    def slot_views(self, slot: int, start: int, stop: int) -> list[Floats]:
        """Returns views of the positions [start : stop] of a slot, in whole blocks.

        The slot may be the attached one. A state is that after the slot's last token.
        """
        attached = slot == len(self._buffers[0])
        parts = self._attached if attached else [buffer[slot] for buffer in self._buffers]
        tensors = zip(self.tensors, parts, strict=True)
        return [part[tensor.slices(start, stop)] for tensor, part in tensors]

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        """Copies the positions [start : stop] of every buffer from one slot to another.

        Of keys whole blocks. So before `start` both slots must hold the same, and after `stop`
        the target nothing that is still needed. Of states all, so the source must end at `stop`.
        """
        written = self.slot_views(target, start, stop)
        for view, copied in zip(written, self.slot_views(source, start, stop), strict=True):
            view[:] = copied


def _sizes(tensors: tuple[CacheTensor, ...], positions: int) -> list[int]:
    """Returns the bytes of one slot in each tensor."""
    return [
        math.prod(tensor.shape(positions)) * np.dtype(tensor.dtype).itemsize for tensor in tensors
    ]


def _lazy_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> Floats:
    """Maps zeros that cost memory page by page, as they are written.

    Not np.zeros, which asks for huge pages: the first prompt in a slot then waits for 2 MB to
    be cleared for every head of every layer. SmolLM2-135M, 4 slots of 2048: 300 to 430 ms
    instead of 55, and 368 MB resident instead of 249.
    """
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(dtype).itemsize)
    with contextlib.suppress(OSError):  # a kernel without huge pages does not know the advice
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)
