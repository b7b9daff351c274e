"""A request to the encoder: its inputs, its rows, and what it has taken."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from handlers.engine.driver import RequestHandle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from handlers.engine.driver import EngineDriver
    from handlers.errors import RequestError


class EncoderInput(msgspec.Struct, frozen=True, eq=False):
    """The ids of a text, or of a pair of them, special tokens included."""

    ids: Sequence[int] | NDArray[np.integer]
    type_ids: Sequence[int] | NDArray[np.integer] | None = None
    """The segment of each id; None if all are of the first."""


class EncodeStats(msgspec.Struct, frozen=True):
    """The tokens and milliseconds that a request has taken."""

    tokens: int
    """Tokens of all inputs, special tokens included."""
    queue_ms: float
    """From submission to the call that first computed something of it."""
    encode_ms: float
    """From there to its last row."""


class EncodeRequest(RequestHandle):
    """A request to encode inputs, and the handle that waits for its rows.

    Only the thread that steps the encoder changes it, except for `cancelled`, which any thread may
    set.
    """

    def __init__(
        self,
        inputs: Sequence[EncoderInput],
        engine: EngineDriver[Any, Any],
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
        self.num_uncomputed_tokens = self.tokens
        """Tokens that are in no batch yet."""
        self.cancelled = False
        self.started: float | None = None
        self.ended: float | None = None
        self._submitted = submitted
        self._rows = np.empty((len(inputs), width), np.float32)
        self._missing = len(inputs)
        self._error: RequestError | None = None

    @property
    def ready(self) -> bool:
        """Returns whether it has ended."""
        return self.ended is not None

    def cancel(self) -> None:
        """Ends the request before the next call. From any thread, any number of times."""
        self.cancelled = True

    async def rows(self) -> NDArray[np.float32]:
        """Waits for all rows: [inputs, width]. Raises EngineFault, DeadlineExceeded, NotReady."""
        await self.wait()
        return self._taken()

    def rows_inline(self) -> NDArray[np.float32]:
        """Waits for all rows without `await`, where no thread runs the steps."""
        self.wait_inline()
        return self._taken()

    def stats(self) -> EncodeStats:
        """Returns what it has taken, once it has ended."""
        ended = self.ended or self._submitted
        started = self.started or ended
        waited, computed = started - self._submitted, ended - started
        return EncodeStats(self.tokens, waited * 1000.0, computed * 1000.0)

    def put(self, index: int, row: NDArray[np.float32]) -> bool:
        """Stores the row of an input. Returns whether it was the last. Called by the encoder."""
        self._rows[index] = row
        self._missing -= 1
        return not self._missing

    def end(self, now: float, error: RequestError | None = None) -> None:
        """Ends the request, with all rows or with an error. Called by the encoder."""
        self._error = error
        self.ended = now

    def _taken(self) -> NDArray[np.float32]:
        if self._error is not None:
            raise self._error
        return self._rows
