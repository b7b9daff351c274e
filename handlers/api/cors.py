"""Which pages of other origins a browser lets call this server.

https://fetch.spec.whatwg.org/#http-cors-protocol. Knows the configured origins and no endpoint.
Called by routes.py, so that both clouds' answers and errors carry the same headers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from handlers.api.http import Response, StreamResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.api.http import Request

Answer = TypeVar("Answer", bound=Response | StreamResponse)

METHODS = "GET, HEAD, POST, OPTIONS"
EXPOSED = "x-request-id, x-kindling-cold, server-timing, retry-after"
# Chromium keeps no preflight longer than this.
PREFLIGHT_SECONDS = "7200"

# What may stand in a list of header names; anything else is not sent back.
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]+")


class Cors:
    """The rules of one process. Without origins it adds nothing and answers nothing."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """`origins`: as in Settings.cors_origins."""
        self._origins = origins
        self._anyone = "*" in origins

    def preflight(self, request: Request) -> Response | None:
        """The answer to a browser that asks before it calls, None for any other request.

        It comes before the check of the API key, which a browser does not send with it.
        """
        asked = "access-control-request-method" in request.headers
        if request.method != "OPTIONS" or not asked or not self._allows(request.headers):
            return None
        headers = {"access-control-allow-methods": METHODS}
        names = request.headers.get("access-control-request-headers", "")
        if _NAMES.fullmatch(names):
            headers["access-control-allow-headers"] = names
        headers["access-control-max-age"] = PREFLIGHT_SECONDS
        return Response(204, headers, b"")

    def label(self, answer: Answer, headers: Mapping[str, str]) -> Answer:
        """The answer with what lets a page read it. `headers`: the request's."""
        if not self._origins:
            return answer
        added = {} if self._anyone else {"vary": "Origin"}
        if self._allows(headers):
            added["access-control-allow-origin"] = "*" if self._anyone else headers["origin"]
            added["access-control-expose-headers"] = EXPOSED
        return replace(answer, headers={**answer.headers, **added})

    def _allows(self, headers: Mapping[str, str]) -> bool:
        return self._anyone or headers.get("origin") in self._origins
