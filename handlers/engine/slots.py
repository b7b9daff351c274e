"""Assigns slots of the cache to sequences, by what the slots already hold."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.engine.prefix_cache import PrefixCache
    from handlers.engine.sequence import Sequence


class Slots:
    """The running sequences, by slot."""

    def __init__(self, count: int, prefixes: PrefixCache) -> None:
        self._sequences: list[Sequence | None] = [None] * count
        self._prefixes = prefixes
        self._freed = [0] * count
        """When a slot was last freed: larger is later, 0 is never."""
        self._clock = itertools.count(1)

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot, in order of slot."""
        return [sequence for sequence in self._sequences if sequence is not None]

    @property
    def full(self) -> bool:
        """Returns whether no slot is free."""
        return None not in self._sequences

    def assign(self, sequence: Sequence) -> None:
        """Gives the sequence a free slot.

        A decode call covers the slots from the first to the last that decodes, so the slot is
        one that widens it least. Among those it is the one that shares the longest prefix, if that
        is more than half of its content, otherwise the least recently used one. The baked prefix
        is kept anyway, so it does not count.
        """
        *shared, baked = self._prefixes.match(sequence.prompt).tolist()
        busy = [member.held_slot for member in self.running]

        def cost(slot: int) -> tuple[int, int, int]:
            width = max(*busy, slot) - min(*busy, slot) if busy else 0
            kept = shared[slot] - baked
            useful = 2 * kept > self._prefixes.cached_len(slot) - baked
            return width, -kept if useful else 0, self._freed[slot]

        free = (slot for slot, member in enumerate(self._sequences) if member is None)
        slot = min(free, key=cost)
        sequence.slot, self._sequences[slot] = slot, sequence

    def free(self, sequence: Sequence) -> None:
        """Frees the sequence's slot, if it has one. What its cache holds stays."""
        if sequence.slot is not None:
            self._sequences[sequence.slot] = None
            self._freed[sequence.slot] = next(self._clock)
            sequence.slot = None
