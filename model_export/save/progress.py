"""Says every few seconds how much of a file is written, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from model_export.reporting import Report

_EVERY = 5.0
"""Seconds between two lines. What takes less than that has none."""


class Progress:
    """Counts the bytes of a file. Those that an earlier run wrote say nothing of the speed."""

    def __init__(
        self, report: Report | None, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report, self._total, self._clock = report, total, clock
        self._began = self._told = clock()
        self._written = self._kept = 0

    def add(self, size: int, *, kept: bool = False) -> None:
        """Counts a part that has just been written, or that is `kept` of an earlier run."""
        if kept:
            self._kept += size
        else:
            self._written += size
        now = self._clock()
        if self._report is not None and self._written and now - self._told >= _EVERY:
            self._told = now
            self._report(self._line(now - self._began))

    def _line(self, seconds: float) -> str:
        done = self._written + self._kept
        left = seconds / self._written * (self._total - done)
        unit, name = (1e9, "GB") if self._total >= 1e9 else (1e6, "MB")
        digits = 1 if name == "GB" else 0
        sizes = f"{done / unit:.{digits}f} of {self._total / unit:.{digits}f} {name}"
        return f"  {sizes}, {_duration(left)} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
