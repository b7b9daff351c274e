"""Server-sent events: strings only, no sockets.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import msgspec

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

DONE = b"data: [DONE]\n\n"
"""OpenAI's end of a stream; absent when the stream broke."""


def event(data: object, name: str | None = None) -> bytes:
    """One event. JSON has no line breaks of its own, so one `data:` line carries it."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"
