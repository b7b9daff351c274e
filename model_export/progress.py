"""Progress lines: one for each long step, with the seconds since the export began."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Report = Callable[[str], None]
"""Takes one line. Steps are handed one, so that a test or a benchmark can collect the lines."""


def console() -> Report:
    """Prints `[  12.3 s] line`, counted from this call."""
    began = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - began:6.1f} s] {line}\n")
        sys.stdout.flush()

    return report
