"""A whole answer in JSON. Called by the endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.api.messages import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON_HEADERS = {"content-type": "application/json"}


def json_response(body: object, headers: Mapping[str, str] | None = None) -> Response:
    """Makes an answer of status 200."""
    usage = body.get("usage") if isinstance(body, dict) else None
    return Response(200, {**JSON_HEADERS, **(headers or {})}, msgspec.json.encode(body), usage)
