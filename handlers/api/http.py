"""The HTTP request and response that adapters and endpoints exchange, and helpers to make them.

No cloud and no socket in it: each adapter turns its own events into a Request, and a Response or a
StreamResponse into what its platform sends.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from handlers.errors import RequestError

T = TypeVar("T")

JSON_HEADERS = {"content-type": "application/json"}
SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

SSE_DONE = b"data: [DONE]\n\n"
"""OpenAI's end of a stream; absent when the stream broke."""

REQUEST_ID_HEADER = "x-request-id"
TIMING_HEADER = "server-timing"
COLD_HEADER = "x-kindling-cold"
"""Marks an answer that waited for its process to start, or to be restored."""

# An id comes back in a header and stands in the log: nothing that either would have to escape.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


class Request(msgspec.Struct, frozen=True):
    """One HTTP request, whichever cloud it came through."""

    method: str
    """Upper case."""
    path: str
    """As it came, percent-decoded and without the query: "/v1/chat/completions"."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    deadline: float | None = None
    """`time.monotonic()` seconds at which the answer must be on its way, None for no limit."""
    inner_paths: tuple[str, ...] = ()
    """What remains of the path without a stage or a base path that the platform may have put before
    it. Tried where no route has the path as it came."""
    id: str = ""
    """The id that the log and the answer's headers have, empty for a request that has none."""


class TokenUsage(msgspec.Struct, frozen=True):
    """The tokens that one answer took, over all its prompts and choices."""

    prompt_tokens: int
    completion_tokens: int = 0
    """0 where nothing is generated."""
    cached_tokens: int = 0
    """Those of the prompts that were read from the cache."""
    reasoning_tokens: int = 0
    """Those of the answers' thoughts, which completion_tokens counts too."""
    drafted_tokens: int = 0
    """Guessed ids that were computed."""
    accepted_tokens: int = 0
    """Those of them that came true."""


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case. Content-length is never among them: the transport sets it."""
    body: bytes
    usage: TokenUsage | None = None
    """The tokens that the answer took, for the log; None for an answer that took none."""
    left_out: int | None = None
    """Bytes of the body that a GET would have got, where HEAD asked."""
    failure: RequestError | None = None
    """The error that the body describes, for a caller that is told of it in another way."""


class StreamOutcome(msgspec.Struct):
    """How a stream ended. Filled while its chunks are read, complete when they have ended."""

    failure: RequestError | None = None
    """Why the stream broke; its last chunk has told the client."""
    usage: TokenUsage | None = None
    """The tokens that the whole answer took; None where the stream ended early."""


class StreamResponse(msgspec.Struct, frozen=True):
    """An answer that leaves chunk by chunk.

    `status` and `headers` are final before the first chunk. Closing `chunks` early (`aclose()`)
    cancels the generation that makes them.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes]
    outcome: StreamOutcome = msgspec.field(default_factory=StreamOutcome)

    @property
    def failure(self) -> RequestError | None:
        """The error that broke the stream, once `chunks` have ended."""
        return self.outcome.failure

    @property
    def usage(self) -> TokenUsage | None:
        """The tokens that the answer took, once `chunks` have ended."""
        return self.outcome.usage


def json_response(
    body: object, headers: Mapping[str, str] | None = None, usage: TokenUsage | None = None
) -> Response:
    """Returns a response of status 200 with `body` as JSON."""
    return Response(200, {**JSON_HEADERS, **(headers or {})}, msgspec.json.encode(body), usage)


def sse_event(data: object, name: str | None = None) -> bytes:
    """Encodes one server-sent event. JSON has no line breaks, so one `data:` line carries it.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


def request_id(headers: Mapping[str, str], ours: str) -> str:
    """Returns the client's request id, or `ours` where it sent none that can be passed on.

    One that can be has 1 to 128 printable ASCII characters and no spaces.
    """
    given = headers.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else ours


def identifying_headers(identity: str, cold: bool) -> dict[str, str]:
    """Returns the headers of every answer: its request's id and, if it was cold, that it was."""
    headers = {REQUEST_ID_HEADER: identity}
    return headers | {COLD_HEADER: "true"} if cold else headers


def server_timing(**milliseconds: float) -> dict[str, str]:
    """Returns the header that https://www.w3.org/TR/server-timing/ defines."""
    metrics = (f"{name};dur={duration:.1f}" for name, duration in milliseconds.items())
    return {TIMING_HEADER: ", ".join(metrics)}


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never suspends, without an event loop, and returns its result.

    On Lambda the engine computes where a coroutine would wait, so asyncio is never imported. Raises
    RuntimeError where the coroutine does wait.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("The coroutine waits for an event loop, and there is none.")
