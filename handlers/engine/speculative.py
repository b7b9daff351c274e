"""Chooses how many drafted ids a decode call computes after each sequence's newest one.

    ids a call is expected to give      sum over its sequences of 1 + p + p^2 + ...
    time it takes                       as measured, by rows and columns

The width with the most ids for the time is taken. Drafts are made, and judged by the ids that
then come, also while none is computed. So a sequence that begins to copy is noticed, one that has
nothing to copy costs a look at its ids, and nothing has to be known of the machine or its kernels.

It changes what a call computes, never which ids come of it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from handlers.engine.ngram_proposer import NgramProposer

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from handlers.engine.sequence import Sequence

# The median of each shape's latest calls counts, so that a call that others held up does not.
WINDOW = 15
MIN_SAMPLES = 3

# Once in so many calls each shape's oldest time is forgotten, so that one that has not been chosen
# for long is tried again: the past has grown, or the machine has other work.
FORGET_EVERY = 128


class SpeculationPolicy:
    """Chooses the drafts of each decode call."""

    def __init__(self) -> None:
        self.timer = StepTimer()

    def propose(self, sequences: Items[Sequence]) -> list[list[int]]:
        """Returns the drafted ids to compute after each sequence's newest one; often none.

        `sequences` are all that the call decodes, in order of slot.
        """
        drafts = [_draft_of(sequence) for sequence in sequences]
        longest = max(len(draft) for draft, _ in drafts)
        rows = sequences[-1].held_slot - sequences[0].held_slot + 1
        columns = range(1, 2 + longest)

        def speed(width: int) -> float:
            ids = sum(_expected(min(len(draft), width - 1), rate) for draft, rate in drafts)
            return ids / self.timer.ratio(rows, width)

        width = max(columns, key=speed)  # of equal ones the narrowest
        return [draft[: width - 1] for draft, _ in drafts]


class StepTimer:
    """The times that decode calls of each shape take on this machine, now."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], deque[float]] = {}
        self._calls = 0

    def record(self, rows: int, columns: int, seconds: float) -> None:
        """Adds the time of one call."""
        recent = self._seconds.setdefault((rows, columns), deque(maxlen=WINDOW))
        recent.append(seconds)
        self._calls += 1
        if self._calls % FORGET_EVERY == 0:
            self._forget_oldest()

    def ratio(self, rows: int, columns: int) -> float:
        """Returns the time of such a call over that of one with as many rows and one column.

        1 where it is not known, so that it is tried; not before that one column is known.
        """
        narrow, wide = (self._seconds.get((rows, width), ()) for width in (1, columns))
        if columns == 1:
            return 1.0
        if len(narrow) < MIN_SAMPLES:
            return math.inf
        return _median(wide) / _median(narrow) if len(wide) >= MIN_SAMPLES else 1.0

    def _forget_oldest(self) -> None:
        for recent in self._seconds.values():
            if recent:
                recent.popleft()


def _draft_of(sequence: Sequence) -> tuple[list[int], float]:
    """Returns a sequence's draft, and the probability of each of its ids.

    The draft is empty for a grammar's answer, and where there is no memory: it can do without.
    """
    if sequence.constraint is not None:
        return [], 0.0
    try:
        if sequence.proposer is None:
            sequence.proposer = NgramProposer(sequence.prompt, sequence.max_new_tokens)
        sequence.proposer.update(sequence.tokens)
    except MemoryError:
        return [], 0.0
    # The call gives one id more than the drafted ones that come true.
    useful = sequence.max_new_tokens - len(sequence.tokens) - 1
    return sequence.proposer.draft[: max(0, useful)], sequence.proposer.hit_rate


def _expected(drafted: int, hit_rate: float) -> float:
    """Returns the number of ids that a call is expected to give one of its sequences."""
    return sum(hit_rate**place for place in range(drafted + 1))


def _median(values: Items[float]) -> float:
    return sorted(values)[len(values) // 2]
