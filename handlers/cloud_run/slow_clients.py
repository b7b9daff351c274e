"""Limits on clients that keep the Cloud Run process waiting, or that have stopped in the middle.

BoundedConnection limits how long a connection may take to send a request's head, or the rest of a
body that nobody reads; BodyReader how long, and how large, the bodies that are read may be.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from starlette.requests import Request as HttpRequest
from uvicorn.protocols.http.h11_impl import H11Protocol

from handlers.errors import Overloaded, RequestTimeout, RequestTooLarge

# How many bodies of the largest size may arrive at once. More requests wait in the queue, but there
# each has all of its bytes within a moment.
LARGEST_BODIES = 8
# uvicorn holds as much of each connection in any case: bodies that are no larger are always read,
# so that slow clients cannot keep others from asking short questions.
SMALL_BODY_BYTES = 64 * 1024


def bounded_connection(request_seconds: float) -> type[H11Protocol]:
    """Returns the class of connections that wait that long for a request."""
    return type("_BoundedConnection", (BoundedConnection,), {"request_seconds": request_seconds})


class BoundedConnection(H11Protocol):
    """A connection of uvicorn's that is closed where its client keeps it waiting.

    uvicorn itself waits for ever for a request's head, and for the rest of a body that is answered
    already, so that any client could hold as many connections as it likes.
    """

    request_seconds: ClassVar[float]
    _limit: asyncio.TimerHandle | None = None
    """Closes the connection, unless a request is answered before."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins the wait for the head of the first request."""
        super().connection_made(transport)
        self._close_in(self.request_seconds)

    def data_received(self, data: bytes) -> None:
        """Limits the wait for what is missing. A request being answered has BodyReader's limits."""
        super().data_received(data)  # ends uvicorn's own wait, for the first byte of a request
        if self._is_answering():
            self._cancel_limit()
        elif self._is_idle():  # what came was the rest of a body that is answered already
            self._close_in(self.timeout_keep_alive)
        elif self._limit is None:
            self._close_in(self.request_seconds)

    def on_response_complete(self) -> None:
        """Limits the wait for the rest of the request's body, of which nobody reads more."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self._is_answering():
            self._close_in(self.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends uvicorn's own wait too, which it forgets where a connection was reset.

        Until then all that belongs to the connection would stay in memory.
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


class BodyReader:
    """Reads the bodies of requests within bounds: each has a size and a time, and all a size."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._held = 0
        self._timeouts: set[asyncio.Timeout] = set()

    async def read(self, http_request: HttpRequest) -> bytes:
        """Returns the whole body. Never holds more than its limit and one chunk of the socket's.

        Raises RequestTooLarge, RequestTimeout, Overloaded, and starlette's ClientDisconnect.
        """
        body = bytearray()
        timeout = asyncio.timeout(self._seconds)
        try:
            async with timeout:
                self._timeouts.add(timeout)
                async for chunk in http_request.stream():
                    body += chunk
                    self._held += len(chunk)
                    self._check(len(body))
        except TimeoutError:
            raise RequestTimeout(
                f"Of the body {len(body):,} bytes arrived in time: send it at once."
            ) from None
        finally:
            self._held -= len(body)
            self._timeouts.discard(timeout)
        return bytes(body)

    def end_within(self, seconds: float) -> None:
        """Stops waiting, after that time, for bodies that are still arriving."""
        end = asyncio.get_running_loop().time() + seconds
        for timeout in self._timeouts:
            if not timeout.expired():  # asyncio refuses to move one that has just run out
                timeout.reschedule(min(end, timeout.when() or end))

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise RequestTooLarge(
                f"The body is over the limit of {self._max_bytes:,} bytes: send less."
            )
        if size > SMALL_BODY_BYTES and self._held > LARGEST_BODIES * self._max_bytes:
            raise Overloaded("Too many large bodies are on their way at once: try again later.")
