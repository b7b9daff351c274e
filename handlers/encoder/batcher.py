"""Which inputs the next call computes, of all that wait.

Pure logic: no clock, no threads, no ONNX Runtime. The encoder calls it, from one thread at a time.
docs/encoder.md has the measurements behind the two bounds.
"""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from handlers.encoder.batch import Input
    from handlers.encoder.encoding import Encoding

# Larger calls gain nothing, and everybody else waits for their end.
BATCH_TOKENS = 256

# Computing this many tokens takes as long as a call of its own costs: an input that is shorter
# than its batch by more is better off in another.
PADDING_TOKENS = 16


class Place(msgspec.Struct, eq=False):
    """One input of a request, while it waits."""

    encoding: Encoding
    index: int
    """Of the input in its request."""
    length: int
    taken: bool = False

    @property
    def input(self) -> Input:
        """What is to be computed."""
        return self.encoding.inputs[self.index]


class Batcher:
    """All inputs that wait, by their requests and by their lengths."""

    def __init__(self) -> None:
        self._places: dict[Encoding, list[Place]] = {}
        """In the order in which they came; of each the shortest input first."""
        self._by_length: dict[int, dict[Place, None]] = {}
        """Of one length in the order in which they came."""
        self._oldest_next = False

    def add(self, encoding: Encoding) -> None:
        """Queues all inputs of a request."""
        places = [
            Place(encoding, index, len(each.ids)) for index, each in enumerate(encoding.inputs)
        ]
        self._places[encoding] = sorted(places, key=lambda place: place.length)
        for place in places:
            self._by_length.setdefault(place.length, {})[place] = None

    def remove(self, encoding: Encoding) -> None:
        """Forgets what is left of a request, also of one whose `add` failed in its middle."""
        for place in self._places.pop(encoding, ()):
            if place in self._by_length.get(place.length, ()):
                self._forget(place)

    def next(self) -> list[Place]:
        """The inputs of one call, none where nobody waits.

        The longest input of the request whose turn it is, and with it its inputs that are nearly
        as long; then those of others, as long as the narrowest of them allows, the longest first.
        """
        if not self._places:
            return []
        batch = [self._take(place) for place in self._own(self._lead())]
        width = self._width(batch)
        rows = BATCH_TOKENS // width
        for place in self._descending(width):
            if len(batch) >= rows:
                break
            batch.append(self._take(place))
        return batch

    def _lead(self) -> Encoding:
        """The oldest request and the one with the least to compute, by turns.

        First come, first served would hold a query behind 2,000 documents for seconds; the
        smallest first might hold the documents for ever. So who comes while the oldest is
        computed waits for the end of that call alone.
        """
        oldest = next(iter(self._places))
        smallest = min(self._places, key=lambda encoding: encoding.unread)
        lead = oldest if self._oldest_next else smallest
        self._oldest_next = lead is not oldest
        return lead

    def _own(self, encoding: Encoding) -> list[Place]:
        """What a call computes of a request, the longest first."""
        places = self._places[encoding]
        while places[-1].taken:
            places.pop()
        width = places[-1].length
        near = takewhile(lambda place: place.length >= width - PADDING_TOKENS, reversed(places))
        waiting = (place for place in near if not place.taken)
        return list(islice(waiting, max(1, BATCH_TOKENS // width)))

    def _width(self, batch: Sequence[Place]) -> int:
        """That of the longest input that may join, else the batch's own."""
        widest = batch[-1].length + PADDING_TOKENS
        fitting = min(widest, BATCH_TOKENS // (len(batch) + 1))
        own = batch[0].length
        return next((n for n in range(fitting, own, -1) if n in self._by_length), own)

    def _descending(self, width: int) -> Iterator[Place]:
        """What waits and is at most PADDING_TOKENS shorter than `width`."""
        for length in range(width, max(0, width - PADDING_TOKENS - 1), -1):
            yield from list(self._by_length.get(length, ()))

    def _take(self, place: Place) -> Place:
        place.taken = True
        self._forget(place)
        place.encoding.unread -= place.length
        if not place.encoding.unread:
            del self._places[place.encoding]
        return place

    def _forget(self, place: Place) -> None:
        same = self._by_length[place.length]
        del same[place]
        if not same:
            del self._by_length[place.length]
