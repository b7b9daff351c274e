"""Who holds which slot, and which free one a newcomer gets.

Owned by the scheduler. Knows what the slots' caches hold from prefix.py.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handlers.engine.prefix import PrefixReuse
    from handlers.engine.sequence import Sequence


class Slots:
    """The sequences that run, by slot."""

    def __init__(self, count: int, prefixes: PrefixReuse) -> None:
        self._sequences: list[Sequence | None] = [None] * count
        self._prefixes = prefixes
        self._left = [0] * count
        """When a slot's last sequence left it: larger is later, 0 is never."""
        self._clock = itertools.count(1)

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot, in order of slot."""
        return [sequence for sequence in self._sequences if sequence is not None]

    @property
    def full(self) -> bool:
        """Whether no slot is free."""
        return None not in self._sequences

    def take(self, sequence: Sequence) -> None:
        """Gives the sequence a free slot.

        A decode call covers the slots from the first to the last that decodes, so the slot is
        one that widens it least. Among those it is one that holds the beginning of the prompt
        and would lose less than it keeps, else the one that was left first. What is baked is kept
        anyway, so it does not count.
        """
        *shared, baked = self._prefixes.shared(sequence.prompt).tolist()
        busy = [member.held_slot for member in self.running]

        def cost(slot: int) -> tuple[int, int, int]:
            width = max(*busy, slot) - min(*busy, slot) if busy else 0
            kept = shared[slot] - baked
            useful = 2 * kept > self._prefixes.held(slot) - baked
            return width, -kept if useful else 0, self._left[slot]

        free = (slot for slot, member in enumerate(self._sequences) if member is None)
        slot = min(free, key=cost)
        sequence.slot, self._sequences[slot] = slot, sequence

    def leave(self, sequence: Sequence) -> None:
        """Frees the sequence's slot, if it has one. What its cache holds stays."""
        if sequence.slot is not None:
            self._sequences[sequence.slot] = None
            self._left[sequence.slot] = next(self._clock)
            sequence.slot = None
