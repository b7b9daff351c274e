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


class Timed:
    """Reports how much of a long step is done and how long the rest may take, now and then."""

    INTERVAL = 10.0
    """Seconds between two lines; a step that is shorter has none."""

    def __init__(self, report: Report, step: str, unit: str = "layers") -> None:
        self._report, self._step, self._unit = report, step, unit
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Takes how many units are done, and how many there are."""
        now = time.monotonic()
        if done < total and now - self._said >= self.INTERVAL:
            self._said = now
            left = (now - self._began) / done * (total - done)
            self._report(f"{self._step}: {done} of {total} {self._unit}, {left:.0f} s left")
