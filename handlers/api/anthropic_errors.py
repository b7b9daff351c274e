"""Makes the answer of every error that a client of Anthropic's gets: in that API's own shape.

https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from handlers.api.error_responses import client_message, error_body
from handlers.api.http import Response, StreamResponse
from handlers.api.schemas import ResponseSchema
from handlers.errors import as_request_error

if TYPE_CHECKING:
    from handlers.errors import RequestError

Answer = TypeVar("Answer", bound=Response | StreamResponse)

TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""The types of errors by their status. Clients ask again after the last four, also where a stream
breaks and has no status any more."""
OTHER_TYPE = "invalid_request_error"


DETAILS = {"thread": {"error_code": "thread_unsupported_request"}}
"""The causes of errors about a field, as clients read them: after this one Anthropic's own asks
again with the whole conversation."""


class AnthropicErrorDetail(ResponseSchema, frozen=True, kw_only=True):
    """The kind of an error, and what to do about it."""

    type: str
    message: str
    details: dict[str, str] | UnsetType = UNSET


class AnthropicError(ResponseSchema, frozen=True, kw_only=True):
    """The body of an error of /v1/messages, and the event that ends its stream."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


def anthropic_error(error: BaseException, request_id: str) -> AnthropicError:
    """Returns the event of an error that breaks a stream. Logs a bug, as error_body does."""
    message = error_body(error).error.message
    return _body(as_request_error(error), message, request_id)


def anthropic_answer(answer: Answer, request_id: str) -> Answer:
    """Returns an answer as clients of Anthropic's know it: an error in its shape, and the id."""
    if isinstance(answer, Response) and answer.failure is not None:
        body = _body(answer.failure, client_message(answer.failure), request_id)
        answer = replace(answer, body=msgspec.json.encode(body))
    return replace(answer, headers={**answer.headers, **_id_header(request_id)})


def _id_header(request_id: str) -> dict[str, str]:
    return {"request-id": request_id} if request_id else {}


def _body(known: RequestError, message: str, request_id: str) -> AnthropicError:
    detail = AnthropicErrorDetail(
        type=TYPES.get(known.status, OTHER_TYPE),
        message=message,
        details=DETAILS.get(known.param or "", UNSET),
    )
    return AnthropicError(type="error", error=detail, request_id=request_id or None)
