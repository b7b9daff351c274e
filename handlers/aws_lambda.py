"""The AWS Lambda adapter: `handler` is the function that awslambdaric calls.

Importing this module is the cold start. One environment answers one event at a time, so the
engine has no thread of its own: whoever waits for a token turns the crank. Knows nothing of
tokens or of the model; the event's shapes are lambda_events.py's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from handlers.api.inline import run_inline
from handlers.api.messages import Request, Response
from handlers.api.request_id import HEADER, request_id
from handlers.config import Settings
from handlers.errors import InvalidRequest, ResponseTooLarge, StartupError
from handlers.lambda_events import DIRECT, EventKind, kind_of, parse
from handlers.log import Access
from handlers.startup import Service, load_service

# From the deadline to the answer's post: the step under way, at worst a chunk of 128 prompt tokens
# at the 250 to 500 tokens/s of one or two CPUs, so 0.5 s; the rest is for models that are slower
# than SmolLM2-135M. Of a short remainder at most half.
DEADLINE_MARGIN_SECONDS = 2.0

# The log's method and path of an event that cannot be read, as in the Common Log Format.
UNKNOWN = "-"


class Context(Protocol):
    """What is needed of awslambdaric's context."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Until Lambda kills the process."""


def load() -> Service:
    """Raises awslambdaric's FaultException with a StartupError's sentence."""
    try:
        return load_service(Settings.from_environ())
    except StartupError as error:
        # Only this class reaches the operator without a traceback, as one line of log and as
        # the init error that Lambda shows.
        from awslambdaric.lambda_runtime_exception import FaultException

        raise FaultException(type(error).__name__, str(error)) from None


SERVICE = load()


def handler(event: object, context: Context) -> Any:
    """Answers one event in its own shape. Raises InvalidRequest for an event of no known shape.

    Raising is what makes a misdirected queue or rule notice: Lambda counts an error, retries,
    and hands the event to the dead-letter queue.
    """
    event = parse(event)
    kind = kind_of(event)
    try:
        request = kind.read(event)
    except InvalidRequest as error:
        unread = Access(context.aws_request_id, UNKNOWN, UNKNOWN)
        return _deliver(kind, SERVICE.api.refuse(error, {}), {}, unread)
    identity = request_id(request.headers, context.aws_request_id)
    access = Access(identity, request.method, request.path)
    if kind is DIRECT:
        request = _authorised(request)
    response = run_inline(_answer(replace(request, deadline=_deadline(kind, context))))
    return _deliver(kind, response, request.headers, access)


def _deliver(
    kind: EventKind, response: Response, headers: Mapping[str, str], access: Access
) -> Any:
    """The answer in the event's own shape; writes its line of the log. `headers`: the request's."""
    result = kind.write(_labelled(response, access))
    if len(json.dumps(result)) > kind.max_response_bytes:
        response = SERVICE.api.refuse(_too_large(kind, response), headers)
        result = kind.write(_labelled(response, access))
    access.done(response.status, response.body)
    return result


async def _answer(request: Request) -> Response:
    """A stream is joined: awslambdaric posts one whole value."""
    answer = await SERVICE.api.handle(request)
    if isinstance(answer, Response):
        return answer
    body = b"".join([chunk async for chunk in answer.chunks])
    return Response(answer.status, answer.headers, body)


def _deadline(kind: EventKind, context: Context) -> float:
    remaining = context.get_remaining_time_in_millis() / 1000
    if kind.max_seconds is not None:
        remaining = min(remaining, kind.max_seconds)
    return time.monotonic() + max(remaining - DEADLINE_MARGIN_SECONDS, remaining / 2)


def _labelled(response: Response, access: Access) -> Response:
    return replace(response, headers={**response.headers, HEADER: access.id})


def _authorised(request: Request) -> Request:
    """A direct invoke has no headers: IAM's lambda:InvokeFunction has authorised it already."""
    if SERVICE.settings.api_key is None:
        return request
    return replace(request, headers={"authorization": f"Bearer {SERVICE.settings.api_key}"})


def _too_large(kind: EventKind, response: Response) -> ResponseTooLarge:
    return ResponseTooLarge(
        f"The answer of {len(response.body):,} bytes is over what can be carried back, "
        f"{kind.max_response_bytes:,} bytes: ask for fewer tokens or inputs, for base64 in "
        f"place of numbers, or for an answer that is not streamed."
    )
