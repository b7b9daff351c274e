"""Makes the answer of every error: OpenAI's {"error": {"message", "type", "param", "code"}}.

A whole answer gets it as its body, a stream that breaks as its last event.
"""

from __future__ import annotations

import logging

import msgspec

from handlers.api.http import JSON_HEADERS, Response
from handlers.api.schemas import Error, ErrorDetail
from handlers.errors import (
    EngineFault,
    InvalidApiKey,
    MethodNotAllowed,
    RequestError,
    UnsupportedMediaType,
    as_request_error,
    shortened,
)

log = logging.getLogger(__name__)

# The longest that this project writes itself has 600; some repeat what the client has sent.
MESSAGE_CHARACTERS = 1024


def error_response(error: BaseException) -> Response:
    """Makes the whole answer of an error. Logs what is no RequestError, since it is a bug."""
    body = msgspec.json.encode(error_body(error))
    known = as_request_error(error)
    return Response(known.status, _headers(known), body, failure=known)


def error_body(error: BaseException) -> Error:
    """Makes the body of an error. Of a bug the log has the details, the body does not."""
    known = as_request_error(error)
    if isinstance(known, EngineFault):
        log.error("A request failed: %s", error, exc_info=error)
    param = _utf8(shortened(known.param)) if known.param else None
    message = client_message(known)
    return Error(error=ErrorDetail(message=message, type=known.type, param=param, code=known.code))


def client_message(error: RequestError) -> str:
    """Returns the message of an error that a client may see."""
    if isinstance(error, EngineFault):
        return "The server failed to answer. Its log has the reason."
    return _utf8(shortened(str(error), MESSAGE_CHARACTERS))


def _headers(error: RequestError) -> dict[str, str]:
    headers = dict(JSON_HEADERS)
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
