"""The end of the process: nobody asks for another invocation, and who has one may finish it.

Knows no event and no answer. Called by pollers.py, and by the kernel.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from handlers.aws_lambda.runtime.client import RuntimeApi
    from handlers.startup import Service


class Stop:
    """Tells all pollers to end. From any thread, or from a signal's handler; once is enough."""

    def __init__(self, service: Service, apis: Sequence[RuntimeApi]) -> None:
        self._service = service
        self._apis = apis
        # Not an Event, whose lock a signal would take twice that comes while its handler sets it.
        self._told = False

    def __call__(self) -> None:
        """Returns at once. What is not done after `drain_seconds` is ended."""
        if self._told:
            return
        self._told = True
        for api in self._apis:
            api.stop()
        threading.Thread(target=self._drain, daemon=True).start()

    def at_sigterm(self) -> None:
        """From now on. A second SIGTERM waits for nothing."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._told:
            sys.exit(0)
        self()

    def _drain(self) -> None:
        """As Cloud Run's adapter. An engine without a thread drains nobody: its poller does."""
        engine, seconds = self._service.engine, self._service.settings.drain_seconds
        if not engine.threaded:
            time.sleep(seconds)
        engine.stop(seconds)
