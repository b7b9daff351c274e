"""The times that calls take on this machine, now, by their rows and columns."""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import TYPE_CHECKING

from handlers.engine.params import MAX_DRAFT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

# The median of each shape's latest calls counts, so that a call that others held up does not.
WINDOW = 15
MIN_SAMPLES = 3

# Once in so many calls each shape's oldest time is forgotten, so that one that has not been chosen
# for long is tried again: the past has grown, or the machine has other work.
FORGET_EVERY = 128


class StepTimer:
    """The median time of each shape's latest calls."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], deque[float]] = {}
        self._medians: dict[tuple[int, int], float] = {}
        self._calls = 0

    def record(self, rows: int, columns: int, seconds: float) -> None:
        """Adds the time of one call."""
        shape = rows, columns
        recent = self._seconds.setdefault(shape, deque(maxlen=WINDOW))
        recent.append(seconds)
        if len(recent) >= MIN_SAMPLES:
            self._medians[shape] = _median(recent)
        self._calls += 1
        if self._calls % FORGET_EVERY == 0:
            self._forget_oldest()

    def seconds(self, rows: int, columns: int) -> float | None:
        """Returns the median, None where too few calls of this shape are known."""
        return self._medians.get((rows, columns))

    def ratios(self, rows: int) -> list[float]:
        """Returns the times by columns, over that of one column: [1.0, ...], up to the widest.

        A shape between two known ones lies on the line between them. One that is wider than all
        is thought to take as long as the widest, so that it is tried, if it is at most four times
        as wide, and for ever otherwise. So is all but one column before that one is known.
        """
        widest = 1 + MAX_DRAFT_TOKENS
        known = [(width, self.seconds(rows, width)) for width in range(1, widest + 1)]
        points = [(width, seconds) for width, seconds in known if seconds is not None]
        if not points or points[0][0] != 1:
            return [1.0] + [math.inf] * (widest - 1)
        narrow = points[0][1]
        ratios = [1.0]
        for (left, low), (right, high) in itertools.pairwise(points):
            slope = (high - low) / (right - left)
            ratios += [(low + slope * step) / narrow for step in range(1, right - left + 1)]
        last, seconds = points[-1]
        tried = min(widest, 4 * last) - last
        ratios += [seconds / narrow] * tried
        return ratios + [math.inf] * (widest - len(ratios))

    def _forget_oldest(self) -> None:
        for shape, recent in self._seconds.items():
            if recent:
                recent.popleft()
            if len(recent) < MIN_SAMPLES:
                self._medians.pop(shape, None)


def _median(values: Items[float]) -> float:
    return sorted(values)[len(values) // 2]
