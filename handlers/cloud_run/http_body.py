"""The bodies of requests while they arrive at the Cloud Run process, within bounds.

A client that is slow, or that has stopped in the middle, holds what it has sent: so each body has a
size and a time, and all of them together a size. Knows nothing of what is asked. Called by
function.py.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request as HttpRequest

from handlers.errors import Overloaded, RequestTimeout, RequestTooLarge

# Of the largest size, that may be on their way at once. More wait in the queue, but there each has
# all of its bytes within a moment.
LARGEST_BODIES = 8
# uvicorn holds as much of each connection in any case: bodies that are no larger are always read,
# so that slow clients cannot keep others from asking short questions.
SMALL_BODY_BYTES = 64 * 1024


class Bodies:
    """Those that are arriving."""

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._held = 0
        self._limits: set[asyncio.Timeout] = set()

    async def read(self, http_request: HttpRequest) -> bytes:
        """The whole body. Never holds more than its limit and one chunk of the socket's.

        Raises RequestTooLarge, RequestTimeout, Overloaded, and starlette's ClientDisconnect.
        """
        body = bytearray()
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                self._limits.add(limit)
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
            self._limits.discard(limit)
        return bytes(body)

    def end_in(self, seconds: float) -> None:
        """What has not arrived by then is not waited for: the process stops."""
        end = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            if not limit.expired():  # asyncio refuses to move one that has just run out
                limit.reschedule(min(end, limit.when() or end))

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise RequestTooLarge(
                f"The body is over the limit of {self._max_bytes:,} bytes: send less."
            )
        if size > SMALL_BODY_BYTES and self._held > LARGEST_BODIES * self._max_bytes:
            raise Overloaded("Too many large bodies are on their way at once: try again later.")
