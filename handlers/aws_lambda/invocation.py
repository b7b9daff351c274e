"""One Lambda event from its arrival to its answer, whichever runtime brings it.

Keeps the limits of time and size. The event's shapes are events.py's. Knows nothing of the
model and nothing of how answers travel. Called by function.py and by runtime/.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from handlers.api.http import Request, Response, StreamResponse, request_id
from handlers.aws_lambda.events import EventKind, kind_of, parse
from handlers.errors import (
    InvalidRequest,
    Overloaded,
    RequestError,
    ResponseTooLarge,
    as_request_error,
)
from handlers.log import Access

if TYPE_CHECKING:
    from handlers.startup import Service

# From the deadline to the answer's post: the step under way, at worst a chunk of 128 prompt tokens
# at the 250 to 500 tokens/s of one or two CPUs, so 0.5 s; the rest is for models that are slower
# than SmolLM2-135M. Of a short remainder at most half.
DEADLINE_MARGIN_SECONDS = 2.0

# An answer in the form of a stream that has no body reaches the client, whose connection then stays
# open for minutes. Reported of several runtimes, so it is Lambda's front end:
# https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/issues/95 and
# https://github.com/aws/aws-lambda-go/issues/593.
SHORTEST_BODY = b"\n"
# Those that may have no body.
WITHOUT_BODY = (204, 304)

# Of the statuses below 500.
WORTH_A_RETRY = (Overloaded.status,)

TRACE_HEADER = "x-amzn-trace-id"

# The log's method and path of an event that cannot be read, as in the Common Log Format.
UNKNOWN = "-"


Encode = Callable[[Any], bytes]
"""A value's JSON, as the runtime posts it."""


class Delivery(msgspec.Struct, frozen=True):
    """What goes back for an event."""

    value: Any
    """Of JSON values."""
    posted: bytes
    """The same, encoded: Lambda's limits are of this."""


class Call(msgspec.Struct, frozen=True):
    """An event that gets an answer in its own shape."""

    kind: EventKind
    request: Request | InvalidRequest
    """What is asked, or why it cannot be read."""
    access: Access

    @classmethod
    def of(cls, service: Service, event: object, aws_request_id: str, trace_id: str | None) -> Call:
        """Raises InvalidRequest for an event of no known shape.

        `event`: decoded or as bytes. `trace_id`: X-Ray's, as its header has it.

        Raising is what makes a misdirected queue or rule notice: Lambda counts an error, retries,
        and hands the event to the dead-letter queue.
        """
        event = parse(event)
        kind = kind_of(event, service.settings, service.api.task)
        platform = {"requestId": aws_request_id}
        if trace_id is not None:
            platform["trace"] = trace_id
        try:
            request = _traced(kind.read(event), trace_id)
        except InvalidRequest as error:
            return cls(kind, error, Access(aws_request_id, UNKNOWN, UNKNOWN, platform))
        identity = request_id(request.headers, aws_request_id)
        return cls(kind, request, Access(identity, request.method, request.path, platform))

    async def answer(self, service: Service, seconds: float) -> Response | StreamResponse:
        """What the API says. `seconds`: until Lambda kills the process."""
        if isinstance(self.request, InvalidRequest):
            return service.api.refuse(self.request, {})
        request = self._authorised(self.request, service.settings.api_key)
        return await service.api.handle(replace(request, deadline=self._deadline(seconds)))

    def deliver(self, service: Service, response: Response, encode: Encode) -> Delivery:
        """What the event's sender takes; writes the line of the log.

        Raises the failure of a direct invoke that another try may not meet.
        """
        if (failure := self._raised(response)) is not None:
            self.access.done(failure.status)
            raise failure
        delivery = self._written(response, encode)
        size, limit = len(delivery.posted), self.kind.max_response_bytes
        if size > limit:
            response = self._too_large(service, size, limit)
            delivery = self._written(response, encode)
        self.access.done(response.status, response.usage)
        return delivery

    def fit_for_stream(self, service: Service, response: Response) -> Response:
        """The whole answer, or the error in its place, as the one part of a stream.

        That part is never empty.
        """
        limit = self.kind.max_stream_bytes
        if limit is not None and len(response.body) > limit:
            return self._too_large(service, len(response.body), limit)
        return response if response.body else _with_a_body(response)

    @property
    def streams(self) -> bool:
        """Whether its sender passes an answer on while it is made."""
        return self.kind.max_stream_bytes is not None

    def labelled(self, response: Response) -> Response:
        """With the headers that every answer carries."""
        return replace(response, headers={**response.headers, **self.access.headers})

    def _raised(self, response: Response) -> RequestError | None:
        """Retries, Catch and dead-letter queues are for what is raised: an answer is a success."""
        failure = response.failure
        if not self.kind.is_invoke or failure is None:
            return None
        return failure if failure.status in WORTH_A_RETRY or failure.status >= 500 else None

    def _written(self, response: Response, encode: Encode) -> Delivery:
        value = self.kind.write(self.labelled(response))
        return Delivery(value, encode(value))

    def _authorised(self, request: Request, key: str | None) -> Request:
        """A direct invoke has no headers: IAM's lambda:InvokeFunction has authorised it already."""
        if key is None or not self.kind.is_invoke:
            return request
        return replace(request, headers={**request.headers, "authorization": f"Bearer {key}"})

    def _deadline(self, seconds: float) -> float:
        if self.kind.max_seconds is not None:
            seconds = min(seconds, self.kind.max_seconds)
        return time.monotonic() + max(seconds - DEADLINE_MARGIN_SECONDS, seconds / 2)

    def _too_large(self, service: Service, size: int, limit: int) -> Response:
        error = ResponseTooLarge(
            f"The answer of {size:,} bytes is over what can be carried back, "
            f"{limit:,} bytes: ask for fewer tokens or inputs, for base64 in place of numbers, "
            f"or for an answer that is not streamed."
        )
        headers = self.request.headers if isinstance(self.request, Request) else {}
        return service.api.refuse(error, headers)


def _traced(request: Request, trace_id: str | None) -> Request:
    if trace_id is None or TRACE_HEADER in request.headers:
        return request
    return replace(request, headers={**request.headers, TRACE_HEADER: trace_id})


def _with_a_body(response: Response) -> Response:
    status = 200 if response.status in WITHOUT_BODY else response.status
    headers = {"content-type": "text/plain", **response.headers}
    return replace(response, status=status, headers=headers, body=SHORTEST_BODY)


async def joined(answer: Response | StreamResponse) -> Response:
    """A stream's chunks as one body, for who posts one whole value."""
    if isinstance(answer, Response):
        return answer
    body = b"".join([chunk async for chunk in answer.chunks])
    failure = as_request_error(answer.failures[0]) if answer.failures else None
    return Response(answer.status, answer.headers, body, answer.usage, failure=failure)
