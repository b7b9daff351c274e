"""Lets pages of other origins call this server from a browser.

https://fetch.spec.whatwg.org/#http-cors-protocol
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

REQUEST_METHOD = "access-control-request-method"
METHODS = "GET, HEAD, POST, OPTIONS"
EXPOSED = "x-request-id, request-id, x-kindling-cold, server-timing, retry-after"
# Chromium keeps no preflight longer than this.
PREFLIGHT_SECONDS = "7200"

# A list of header names: anything else is not sent back.
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]+")


class Cors:
    """The allowed origins of one process, at least one."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        """`origins`: as in Settings.cors_origins."""
        self._origins = origins
        self._anyone = "*" in origins

    def preflight(self, request: Request) -> Response | None:
        """Answers a browser's preflight request. Returns None for any other request.

        Called before the API key is checked, which a browser does not send with it.
        """
        is_preflight = request.method == "OPTIONS" and REQUEST_METHOD in request.headers
        if not is_preflight or not self._allows(request.headers):
            return None
        headers = {"access-control-allow-methods": METHODS}
        names = request.headers.get("access-control-request-headers", "")
        if _NAMES.fullmatch(names):
            headers["access-control-allow-headers"] = names
        headers["access-control-max-age"] = PREFLIGHT_SECONDS
        return Response(204, headers, b"")

    def with_headers(self, answer: Answer, headers: Mapping[str, str]) -> Answer:
        """Returns the answer with the headers that let a page read it. `headers`: the request's."""
        added = {} if self._anyone else {"vary": "Origin"}
        if self._allows(headers):
            added["access-control-allow-origin"] = "*" if self._anyone else headers["origin"]
            added["access-control-expose-headers"] = EXPOSED
        return replace(answer, headers={**answer.headers, **added})

    def _allows(self, headers: Mapping[str, str]) -> bool:
        return self._anyone or headers.get("origin") in self._origins
