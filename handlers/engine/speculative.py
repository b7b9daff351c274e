"""Speculative decoding: guesses a sequence's next ids, and computes those that are worth it.

Answers that copy (summaries, quotes, edited code) repeat runs of ids of their prompt. So what
followed the last ids when they came before is a good guess at what follows now, and it costs no
second model: https://github.com/apoorvumang/prompt-lookup-decoding. A guess is called a draft.

A decode call computes some of the drafted ids after each sequence's newest one:

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

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from numpy.typing import NDArray

Draft = tuple[list[int], float]
"""Ids that may come next, and the probability of each of them to do so after those before it."""

MAX_DRAFT_TOKENS = 3

# How much the latest drafted id counts among those before it. A copy that begins is believed after
# four ids, one that has ended is given up after three.
LATEST_WEIGHT = 0.2

# The median of each shape's latest calls counts, so that a call that others held up does not.
WINDOW = 15
MIN_SAMPLES = 3

# Once in so many calls each shape's oldest time is forgotten, so that one that has not been chosen
# for long is tried again: the past has grown, or the machine has other work.
FORGET_EVERY = 128


def propose(ids: NDArray[np.int64]) -> list[int]:
    """Returns what followed the last three ids, otherwise two, when they came before the last time.

    None or MAX_DRAFT_TOKENS ids. An occurrence that ends fewer than those ago is taken to be the
    period of a repetition.
    """
    if len(ids) < 3:
        return []
    ends = np.flatnonzero(ids[1:-1] == ids[-1]) + 1
    ends = ends[ids[ends - 1] == ids[-2]]
    if not len(ends):
        return []
    longer = ends[(ids[ends - 2] == ids[-3]) & (ends > 1)]
    end = int((longer if len(longer) else ends)[-1])
    draft: list[int] = np.resize(ids[end + 1 :], MAX_DRAFT_TOKENS).tolist()
    return draft


class NgramProposer:
    """The drafts of one sequence, and the rate at which its drafted ids come true."""

    def __init__(self, prompt: NDArray[np.int64], max_new_tokens: int) -> None:
        self._ids = np.empty(len(prompt) + max_new_tokens, np.int64)
        self._ids[: len(prompt)] = prompt
        self._known = self._prompt_length = len(prompt)
        self.draft: list[int] = []
        self.hit_rate = 0.5
        """How likely a drafted id is to come true when those before it have."""

    def update(self, answer: Items[int]) -> None:
        """Judges the last draft by the answer as it is now, and makes the next."""
        new = answer[self._known - self._prompt_length :]
        for token_id, drafted in zip(new, self.draft, strict=False):
            self.hit_rate += LATEST_WEIGHT * ((token_id == drafted) - self.hit_rate)
        self._ids[self._known : self._known + len(new)] = new
        self._known += len(new)
        self.draft = propose(self._ids[: self._known])


class SpeculationPolicy:
    """Chooses the drafts of each decode call."""

    def __init__(self) -> None:
        self.timer = StepTimer()

    def select(self, drafts: Items[Draft], rows: int) -> list[list[int]]:
        """Returns the beginning of each draft that is worth computing; often none of it.

        `drafts` are those of all sequences that the call decodes, `rows` the slots that it covers.
        """
        longest = max(len(ids) for ids, _ in drafts)
        columns = range(1, 2 + longest)

        def speed(width: int) -> float:
            count = sum(_expected(min(len(ids), width - 1), rate) for ids, rate in drafts)
            return count / self.timer.ratio(rows, width)

        width = max(columns, key=speed)  # of equal ones the narrowest
        return [ids[: width - 1] for ids, _ in drafts]


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


def _expected(drafted: int, hit_rate: float) -> float:
    """Returns the number of ids that a call is expected to give one of its sequences."""
    return sum(hit_rate**place for place in range(drafted + 1))


def _median(values: Items[float]) -> float:
    return sorted(values)[len(values) // 2]
