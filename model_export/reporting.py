"""Reports to people: lines of progress, and the error that ends an export."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from handlers.errors import KindlingError


class ExportError(KindlingError):
    """The model cannot be exported as asked: a branch of the tree in handlers/errors.py.

    The message says what to change.
    """


Report = Callable[[str], None]
"""Takes one line for each long step. Tests and benchmarks pass one that collects the lines."""


def console() -> Report:
    """Returns a Report that prints `[  12.3 s] line`, counted from this call."""
    began = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - began:6.1f} s] {line}\n")
        sys.stdout.flush()

    return report


class Progress:
    """Says every few seconds how much of a long step is done, and how long the rest will take."""

    INTERVAL = 5.0
    """Seconds between two lines. What takes less than that has none."""

    def __init__(
        self,
        report: Report,
        total: int,
        say: Callable[[int], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Counts up to `total`; `say` puts into words how much is done."""
        self._report, self._total, self._say, self._clock = report, total, say, clock
        self._began = self._last = clock()
        self._done = self._kept = 0

    def add(self, amount: int, *, kept: bool = False) -> None:
        """Counts what has just been done. What an earlier run did says nothing of the speed."""
        if kept:
            self._kept += amount
        else:
            self._done += amount
        now = self._clock()
        left = self._total - self._done - self._kept
        if left and self._done and now - self._last >= self.INTERVAL:
            self._last = now
            seconds = (now - self._began) / self._done * left
            self._report(f"  {self._say(self._done + self._kept)}, {_duration(seconds)} left")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
