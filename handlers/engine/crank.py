"""The crank of an engine: who turns it, and how it comes to rest.

Without `start()` whoever waits for an answer turns it (AWS Lambda: one request at a time, no
thread); with it one background thread does (Cloud Run). Knows nothing of what a turn computes.
The base of the decoder's engine and of the encoder.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod

log = logging.getLogger(__name__)


class Crank(ABC):
    """Every public method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        """Guards what `_busy` looks at and the two flags below; notified when there is work."""
        self._accepting = True
        self._drain_until = math.inf
        self._turning = threading.Lock()
        """Held by the one thread that is inside a turn and ONNX Runtime."""
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _turn(self) -> None:
        """Computes something for those who wait, and tells them."""

    @abstractmethod
    def _busy(self) -> bool:
        """Whether anybody waits."""

    @abstractmethod
    def _end(self) -> None:
        """Ends everybody who still waits."""

    @property
    def threaded(self) -> bool:
        """Whether `start()` has been called."""
        return self._thread is not None

    @property
    def accepting(self) -> bool:
        """Whether new requests are taken: until `stop()`."""
        return self._accepting

    def step(self) -> bool:
        """One turn of the crank, by whoever calls; a second caller waits.

        False, and no turn, where nobody wants anything.
        """
        with self._turning:
            busy = self._busy()
            if busy:
                self._turn()
            return busy

    def start(self) -> None:
        """Lets a background thread turn the crank from now on."""
        self._thread = threading.Thread(target=self._turn_until_stopped, name="engine", daemon=True)
        self._thread.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new requests, lets the others go on for a while, then ends them.

        Returns when the engine is idle for good. Without a thread there is nobody to drain.
        """
        with self._changed:
            self._accepting = False
            self._drain_until = min(self._drain_until, time.monotonic() + drain_seconds)
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        with self._turning:
            self._end()

    def _turn_until_stopped(self) -> None:
        while self._wait_for_work():
            try:
                self.step()
            except BaseException:  # telling them failed too: who is left is told by the next turn
                log.exception("A turn of the engine failed.")

    def _wait_for_work(self) -> bool:
        """Sleeps while nobody wants anything. False when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy() or not self._accepting)
            return self._busy() and time.monotonic() < self._drain_until
