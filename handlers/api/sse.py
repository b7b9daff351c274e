"""Server-sent events: strings only, no sockets.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import msgspec

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

DONE = b"data: [DONE]\n\n"
"""OpenAI's end of a stream; absent when the stream broke."""


def event(data: object) -> bytes:
    """One event. JSON has no line breaks of its own, so one `data:` line carries it."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
