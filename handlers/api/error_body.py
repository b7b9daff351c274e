"""Every error as one body: OpenAI's {"error": {"message", "type", "param", "code"}}.

Called by routes.py for whole answers and by answer.py for streams that have begun.
"""

from __future__ import annotations

import logging

import msgspec

from handlers.api.messages import Response
from handlers.errors import EngineFault, InvalidApiKey, MethodNotAllowed, RequestError

log = logging.getLogger(__name__)


def describe(error: Exception) -> dict[str, object]:
    """The body. What is not a RequestError is a bug: it goes to the log, nothing of it out."""
    known = known_as(error)
    if isinstance(known, EngineFault):
        log.error("A request failed: %s", error, exc_info=error)
    param = _utf8(known.param) if known.param else None
    body = {"message": message_of(known), "type": known.type, "param": param, "code": known.code}
    return {"error": body}


def message_of(error: RequestError) -> str:
    """What may leave of an error."""
    if isinstance(error, EngineFault):
        return "The server failed to answer. Its log has the reason."
    return _utf8(str(error))


def render(error: Exception) -> Response:
    """The whole answer."""
    body = msgspec.json.encode(describe(error))
    known = known_as(error)
    return Response(known.status, _headers(known), body, known)


def known_as(error: BaseException) -> RequestError:
    """The error as one of ours."""
    return error if isinstance(error, RequestError) else EngineFault(str(error))


def _headers(error: RequestError) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, InvalidApiKey):
        headers["www-authenticate"] = "Bearer"
    return headers


def _utf8(text: str) -> str:
    """A path or a query may hold what UTF-8 cannot carry, and an error repeats it."""
    return text.encode("utf-8", "replace").decode()
