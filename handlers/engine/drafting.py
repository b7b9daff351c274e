"""How wide a decode call is: whether drafted ids are computed with the newest ones, and how many.

    ids a call is expected to give      sum over its sequences of 1 + p + p^2 + ...
    time it takes                       as measured, by rows and columns

The width with the most ids for the time is taken. Drafts are made, and judged by the ids that
then come, also while none is computed. So a sequence that begins to copy is noticed, one that has
nothing to copy costs a look at its ids, and nothing has to be known of the machine or its kernels.

Changes what a call computes and never which ids come of it. Owned by the scheduler.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from handlers.engine.prompt_lookup import PromptLookup

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from handlers.engine.sequence import Sequence

# Of each shape's latest calls the median counts, so that a call that others held up does not.
REMEMBERED = 15
ENOUGH = 3

# Once in so many calls each shape's oldest time is forgotten, so that one that has not been chosen
# for long is tried again: the past has grown, or the machine has other work.
FORGOTTEN_AFTER = 128


class Drafting:
    """Chooses the drafts of each decode call."""

    def __init__(self) -> None:
        self.times = CallTimes()

    def drafts(self, sequences: Items[Sequence]) -> list[list[int]]:
        """The drafted ids to compute after each sequence's newest one; often none.

        `sequences` are all that the call decodes, in order of slot.
        """
        guesses = [_guess(sequence) for sequence in sequences]
        longest = max(len(draft) for draft, _ in guesses)
        rows = sequences[-1].held_slot - sequences[0].held_slot + 1
        columns = range(1, 2 + longest)

        def speed(width: int) -> float:
            ids = sum(_expected(min(len(draft), width - 1), rate) for draft, rate in guesses)
            return ids / self.times.relative(rows, width)

        width = max(columns, key=speed)  # of equal ones the narrowest
        return [draft[: width - 1] for draft, _ in guesses]


class CallTimes:
    """What decode calls of each shape take on this machine, now."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], deque[float]] = {}
        self._calls = 0

    def note(self, rows: int, columns: int, seconds: float) -> None:
        """A call has taken so long."""
        recent = self._seconds.setdefault((rows, columns), deque(maxlen=REMEMBERED))
        recent.append(seconds)
        self._calls += 1
        if self._calls % FORGOTTEN_AFTER == 0:
            self._forget_oldest()

    def relative(self, rows: int, columns: int) -> float:
        """The time of such a call to one of as many rows and one column.

        1 where it is not known, so that it is tried; not before that one column is known.
        """
        narrow, wide = (self._seconds.get((rows, width), ()) for width in (1, columns))
        if columns == 1:
            return 1.0
        if len(narrow) < ENOUGH:
            return math.inf
        return _median(wide) / _median(narrow) if len(wide) >= ENOUGH else 1.0

    def _forget_oldest(self) -> None:
        for recent in self._seconds.values():
            if recent:
                recent.popleft()


def _guess(sequence: Sequence) -> tuple[list[int], float]:
    """The draft and the probability of each of its ids. A grammar's answers are not guessed.

    Nor is one for which there is no memory: it needs none to go on.
    """
    if sequence.constraint is not None:
        return [], 0.0
    try:
        if sequence.lookup is None:
            sequence.lookup = PromptLookup(sequence.prompt, sequence.longest_answer)
        sequence.lookup.read(sequence.tokens)
    except MemoryError:
        return [], 0.0
    # The call gives one id more than the drafted ones that come true.
    useful = sequence.longest_answer - len(sequence.tokens) - 1
    return sequence.lookup.draft[: max(0, useful)], sequence.lookup.hit_rate


def _expected(drafted: int, hit_rate: float) -> float:
    """Ids that a call is expected to give one of its sequences."""
    return sum(hit_rate**place for place in range(drafted + 1))


def _median(values: Items[float]) -> float:
    return sorted(values)[len(values) // 2]
