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
