"""What an adapter and the API exchange. No cloud and no socket in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from handlers.errors import RequestError

Usage = Mapping[str, object]
"""Counts of tokens, as OpenAI's `usage` has them: of prompt and completion, or input and output."""


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
    it. Read where no route has the path as it came."""


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case. Content-length is never among them: the transport sets it."""
    body: bytes
    usage: Usage | None = None
    """The body's own, for the log."""
    left_out: int | None = None
    """Bytes of the body that a GET would have got, where HEAD asked."""
    failure: RequestError | None = None
    """The error that the body tells of, for who asked in another way than by HTTP."""


class StreamResponse(msgspec.Struct, frozen=True):
    """An answer that leaves chunk by chunk.

    `status` and `headers` are final before the first chunk. Closing `chunks` early
    (`aclose()`) cancels the generation behind it.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes]
    failures: Sequence[BaseException] = ()
    """Why the stream broke, once `chunks` have ended; its last chunk has told the client."""
    usage: Usage | None = None
    """What the whole answer took, once `chunks` have ended; empty where they ended early."""
