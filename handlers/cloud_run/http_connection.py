"""The connections of the Cloud Run process: uvicorn's, with an end to its patience.

uvicorn waits for ever for a request's head, and for the rest of a body that is answered already, so
that any client could hold as many connections as it likes. Knows nothing of requests. Handed to
uvicorn by __main__.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


def connections(request_seconds: float) -> type[H11Protocol]:
    """The class whose connections wait that long for a request."""
    return type("Connection", (Connection,), {"request_seconds": request_seconds})


class Connection(H11Protocol):
    """Closes itself where the client keeps it waiting between two requests."""

    request_seconds: ClassVar[float]
    _limit: asyncio.TimerHandle | None = None
    """Closes the connection, unless a request is answered before."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The head of the first request is due."""
        super().connection_made(transport)
        self._close_in(self.request_seconds)

    def data_received(self, data: bytes) -> None:
        """A request that is being answered has limits of its own, in function.py."""
        super().data_received(data)  # ends uvicorn's own wait, for the first byte of a request
        if self._is_answering():
            self._cancel_limit()
        elif self._is_idle():  # what came was the rest of a body that is answered already
            self._close_in(self.timeout_keep_alive)
        elif self._limit is None:
            self._close_in(self.request_seconds)

    def on_response_complete(self) -> None:
        """An answer may have come before all of the request's body, of which nobody reads more."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self._is_answering():
            self._close_in(self.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Also ends uvicorn's own wait, which it forgets where a connection was reset.

        For as long all that belongs to the connection would stay in memory.
        """
        self._cancel_limit()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        # None before the first request, though uvicorn's types do not say so.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _is_idle(self) -> bool:
        received, _ = self.conn.trailing_data
        return self.conn.their_state is h11.IDLE and not received

    def _close_in(self, seconds: float) -> None:
        self._cancel_limit()
        self._limit = self.loop.call_later(seconds, self.transport.close)

    def _cancel_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
