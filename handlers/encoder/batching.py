"""Chooses which inputs the next call computes, and pads them to one width.

docs/encoder.md has the measurements for the two bounds.
"""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from handlers.encoder.request import EncodeRequest, EncoderInput

# Larger calls gain nothing, and all other requests wait for their end.
BATCH_TOKENS = 256

# Computing this many tokens takes as long as a call of its own costs: an input that is shorter
# than its batch by more is better off in another.
PADDING_TOKENS = 16


class EncoderBatch(msgspec.Struct, frozen=True, eq=False):
    """The graph's inputs, by their names (docs/graph.md): each [rows, width]."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


def pad(inputs: Sequence[EncoderInput]) -> EncoderBatch:
    """Makes a row of each input, as wide as the longest. Padding is id 0, which the mask hides."""
    shape = len(inputs), max(len(each.ids) for each in inputs)
    batch = EncoderBatch(*(np.zeros(shape, np.int64) for _ in range(3)))
    for row, each in enumerate(inputs):
        length = len(each.ids)
        batch.input_ids[row, :length] = each.ids
        batch.attention_mask[row, :length] = 1
        if each.type_ids is not None:
            batch.token_type_ids[row, :length] = each.type_ids
    return batch


class QueuedInput(msgspec.Struct, eq=False):
    """One input of a request, while it waits to be computed."""

    request: EncodeRequest
    index: int
    """The place of the input in its request."""
    length: int
    taken: bool = False

    @property
    def input(self) -> EncoderInput:
        """The input itself."""
        return self.request.inputs[self.index]


class Batcher:
    """Chooses the inputs of each call among all that wait.

    Pure logic: no clock, no threads, no ONNX Runtime.
    """

    def __init__(self) -> None:
        self._queue: dict[EncodeRequest, list[QueuedInput]] = {}
        """In the order in which they came; of each the shortest input first."""
        self._by_length: dict[int, dict[QueuedInput, None]] = {}
        """The inputs of each length, in the order in which they came."""
        self._oldest_next = False

    def add(self, request: EncodeRequest) -> None:
        """Queues all inputs of a request."""
        queued = [
            QueuedInput(request, index, len(each.ids)) for index, each in enumerate(request.inputs)
        ]
        self._queue[request] = sorted(queued, key=lambda each: each.length)
        for each in queued:
            self._by_length.setdefault(each.length, {})[each] = None

    def remove(self, request: EncodeRequest) -> None:
        """Forgets what is left of a request, also of one whose `add` failed in its middle."""
        for each in self._queue.pop(request, ()):
            if each in self._by_length.get(each.length, ()):
                self._forget(each)

    def next(self) -> list[QueuedInput]:
        """Returns the inputs of one call, none where nothing waits.

        The longest input of the request whose turn it is, and with it its inputs that are nearly
        as long; then those of others, as long as the narrowest of them allows, the longest first.
        """
        if not self._queue:
            return []
        batch = [self._take(each) for each in self._its_inputs(self._next_request())]
        width = self._width(batch)
        rows = BATCH_TOKENS // width
        for each in self._descending(width):
            if len(batch) >= rows:
                break
            batch.append(self._take(each))
        return batch

    def _next_request(self) -> EncodeRequest:
        """Returns the oldest request and the one with the least to compute, in alternation.

        First come, first served would keep a query waiting for 2,000 documents for seconds; the
        smallest first might keep the documents waiting for ever. So a request that comes while
        the oldest is computed waits for the end of that call alone.
        """
        oldest = next(iter(self._queue))
        smallest = min(self._queue, key=lambda request: request.num_uncomputed_tokens)
        request = oldest if self._oldest_next else smallest
        self._oldest_next = request is not oldest
        return request

    def _its_inputs(self, request: EncodeRequest) -> list[QueuedInput]:
        """Returns what a call computes of a request, the longest first."""
        queued = self._queue[request]
        while queued[-1].taken:
            queued.pop()
        width = queued[-1].length
        near = takewhile(lambda each: each.length >= width - PADDING_TOKENS, reversed(queued))
        waiting = (each for each in near if not each.taken)
        return list(islice(waiting, max(1, BATCH_TOKENS // width)))

    def _width(self, batch: Sequence[QueuedInput]) -> int:
        """Returns the width of the longest input that may join, otherwise the batch's own."""
        widest = batch[-1].length + PADDING_TOKENS
        fitting = min(widest, BATCH_TOKENS // (len(batch) + 1))
        own = batch[0].length
        return next((n for n in range(fitting, own, -1) if n in self._by_length), own)

    def _descending(self, width: int) -> Iterator[QueuedInput]:
        """Yields what waits and is at most PADDING_TOKENS shorter than `width`."""
        for length in range(width, max(0, width - PADDING_TOKENS - 1), -1):
            yield from list(self._by_length.get(length, ()))

    def _take(self, queued: QueuedInput) -> QueuedInput:
        queued.taken = True
        self._forget(queued)
        queued.request.num_uncomputed_tokens -= queued.length
        if not queued.request.num_uncomputed_tokens:
            del self._queue[queued.request]
        return queued

    def _forget(self, queued: QueuedInput) -> None:
        same = self._by_length[queued.length]
        del same[queued]
        if not same:
            del self._by_length[queued.length]
