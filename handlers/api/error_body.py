"""Every error as one body: OpenAI's {"error": {"message", "type", "param", "code"}}.

Called by routes.py for whole answers and by answer.py for streams that have begun.
"""

from __future__ import annotations

import logging

import msgspec

from handlers.api.http import Response
from handlers.errors import (
    EngineFault,
    InvalidApiKey,
    MethodNotAllowed,
    RequestError,
    UnsupportedMediaType,
    shortened,
)

log = logging.getLogger(__name__)

# The longest that this project writes itself has 600; some repeat what the client has sent.
MESSAGE_CHARACTERS = 1024


def describe(error: BaseException) -> dict[str, object]:
    """Makes the body. What is not a RequestError is a bug: the log has it, the body does not."""
    known = known_as(error)
    if isinstance(known, EngineFault):
        log.error("A request failed: %s", error, exc_info=error)
    param = _utf8(shortened(known.param)) if known.param else None
    body = {"message": message_of(known), "type": known.type, "param": param, "code": known.code}
    return {"error": body}


def message_of(error: RequestError) -> str:
    """The message that a client may see of an error."""
    if isinstance(error, EngineFault):
        return "The server failed to answer. Its log has the reason."
    return _utf8(shortened(str(error), MESSAGE_CHARACTERS))


def render(error: BaseException) -> Response:
    """Makes the whole answer."""
    body = msgspec.json.encode(describe(error))
    known = known_as(error)
    return Response(known.status, _headers(known), body, failure=known)


def known_as(error: BaseException) -> RequestError:
    """The error as one of ours."""
    return error if isinstance(error, RequestError) else EngineFault(str(error))


def _headers(error: RequestError) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, UnsupportedMediaType):
        headers["accept-encoding"] = ", ".join(error.accepted)
    if isinstance(error, InvalidApiKey):
        headers["www-authenticate"] = "Bearer"
    return headers


def _utf8(text: str) -> str:
    """Replaces what UTF-8 cannot carry: a path or a query may have it, and an error repeats it."""
    return text.encode("utf-8", "replace").decode()
