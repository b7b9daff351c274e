"""One request inside the encoder: its inputs, its rows, and whoever waits for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.engine.consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from handlers.encoder.batch import Input
    from handlers.engine.consumer import Turned
    from handlers.errors import RequestError


class EncodeStats(msgspec.Struct, frozen=True):
    """The tokens and milliseconds that a request has taken."""

    tokens: int
    """Of all inputs, special tokens included."""
    queue_ms: float
    """From submission to the call that first computed something of it."""
    encode_ms: float
    """From there to its last row."""


class Encoding(Consumer):
    """The rows of one request, for one consumer.

    Only the thread that turns the crank changes it, except for `cancelled`, which any thread may
    set.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        engine: Turned,
        *,
        width: int,
        submitted: float,
        deadline: float | None,
    ) -> None:
        """`width`: of a row. `submitted` and `deadline`: `time.monotonic()` seconds."""
        super().__init__(engine)
        self.inputs = inputs
        self.deadline = math.inf if deadline is None else deadline
        self.tokens = sum(len(each.ids) for each in inputs)
        self.unread = self.tokens
        """Tokens that no call has computed yet."""
        self.cancelled = False
        self.started: float | None = None
        self.ended: float | None = None
        self._submitted = submitted
        self._rows = np.empty((len(inputs), width), np.float32)
        self._missing = len(inputs)
        self._error: RequestError | None = None

    @property
    def ready(self) -> bool:
        """Whether it has ended."""
        return self.ended is not None

    def cancel(self) -> None:
        """It ends before the next call. From any thread, any number of times."""
        self.cancelled = True

    async def rows(self) -> NDArray[np.float32]:
        """[inputs, width]. Raises EngineFault, DeadlineExceeded and NotReady."""
        await self.wait()
        return self._taken()

    def rows_inline(self) -> NDArray[np.float32]:
        """The same without `await`, where no thread runs."""
        self.turn()
        return self._taken()

    def stats(self) -> EncodeStats:
        """Returns what it has taken, once it has ended."""
        ended = self.ended or self._submitted
        started = self.started or ended
        waited, computed = started - self._submitted, ended - started
        return EncodeStats(self.tokens, waited * 1000.0, computed * 1000.0)

    def put(self, index: int, row: NDArray[np.float32]) -> bool:
        """Called by the encoder, for each input once. True with the last."""
        self._rows[index] = row
        self._missing -= 1
        return not self._missing

    def end(self, now: float, error: RequestError | None = None) -> None:
        """Called by the encoder: with all rows, or with the reason why there are none."""
        self._error = error
        self.ended = now

    def _taken(self) -> NDArray[np.float32]:
        if self._error is not None:
            raise self._error
        return self._rows
