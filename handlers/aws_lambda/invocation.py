"""Answers one Lambda event: reads it, asks the API, and keeps Lambda's limits of time and size.

Both runtimes use it: function.py, which awslambdaric calls, and runtime/.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from handlers.api.http import Request, Response, StreamResponse, identifying_headers, request_id
from handlers.aws_lambda.events import EventKind, kind_of, parse
from handlers.errors import InvalidRequest, Overloaded, RequestError, ResponseTooLarge
from handlers.log import RequestLog

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from handlers.startup import Service

T = TypeVar("T")

# From the deadline to the answer's post: the step under way, at worst a chunk of 128 prompt tokens
# at the 250 to 500 tokens/s of one or two CPUs, so 0.5 s; the rest is for models that are slower
# than SmolLM2-135M. Of a short remainder at most half.
DEADLINE_MARGIN_SECONDS = 2.0

# An answer in the form of a stream that has no body reaches the client, whose connection then stays
# open for minutes. Reported of several runtimes, so it is Lambda's front end:
# https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/issues/95 and
# https://github.com/aws/aws-lambda-go/issues/593.
SHORTEST_BODY = b"\n"
# The statuses of answers that must have no body.
WITHOUT_BODY = (204, 304)

# The statuses below 500 that a retry may not meet again.
WORTH_A_RETRY = (Overloaded.status,)

TRACE_HEADER = "x-amzn-trace-id"

# The log's method and path of an event that cannot be read, as in the Common Log Format.
UNKNOWN = "-"

Encode = Callable[[Any], bytes]
"""Encodes a JSON value as the runtime posts it."""


class Run(Protocol):
    """Runs a coroutine of the API to its end, from a thread without an event loop."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


class Payload(msgspec.Struct, frozen=True):
    """A whole answer, in the shape that the event's sender takes."""

    value: Any
    """A JSON value."""
    encoded: bytes
    """The same as it is posted: Lambda's limits apply to these bytes."""


class Invocation(msgspec.Struct, frozen=True):
    """A Lambda event that is being answered in the shape that its sender takes."""

    service: Service
    kind: EventKind
    request: Request | InvalidRequest
    """The event as a request, or the reason why it cannot be read as one."""
    log: RequestLog

    @classmethod
    def of(
        cls, service: Service, event: object, aws_request_id: str, trace_id: str | None
    ) -> Invocation:
        """Reads an event, decoded or as bytes. `trace_id` is X-Ray's, as its header has it.

        Raises InvalidRequest for an event of no known kind. That makes a misdirected queue or rule
        notice: Lambda counts an error, retries, and hands the event to the dead-letter queue.
        """
        event = parse(event)
        kind = kind_of(event, service.settings, service.api.task)
        platform = {"requestId": aws_request_id}
        if trace_id is not None:
            platform["trace"] = trace_id
        try:
            request = _with_trace(kind.read(event), trace_id)
        except InvalidRequest as error:
            return cls(service, kind, error, RequestLog(aws_request_id, UNKNOWN, UNKNOWN, platform))
        identity = request_id(request.headers, aws_request_id)
        log = RequestLog(identity, request.method, request.path, platform)
        return cls(service, kind, replace(request, id=identity), log)

    def respond(self, run: Run, seconds: float, encode: Encode) -> Payload:
        """Answers with one whole value, and logs it. `seconds`: until Lambda kills the process.

        Raises the failure of a direct invoke that a retry may not meet again.
        """
        response = run(self._whole_response(seconds))
        if (failure := self._failure_to_raise(response)) is not None:
            self.log.log_completed(failure.status)
            raise failure
        payload = self._payload(response, encode)
        size, limit = len(payload.encoded), self.kind.max_response_bytes
        if size > limit:
            response = self._too_large(size, limit)
            payload = self._payload(response, encode)
        self.log.log_completed(response.status, response.usage)
        return payload

    @property
    def streams(self) -> bool:
        """Returns whether the sender passes an answer on while it is made."""
        return self.kind.max_stream_bytes is not None

    async def answer(self, seconds: float) -> Response | StreamResponse:
        """Returns the API's answer, unchanged. `seconds`: until Lambda kills the process."""
        if isinstance(self.request, InvalidRequest):
            return self.service.api.refuse(self.request, None)
        request = replace(self._authorised(self.request), deadline=self._deadline(seconds))
        return await self.service.api.handle(request)

    def as_one_part(self, response: Response) -> Response:
        """Returns a whole answer, or the error in its place, as the only part of a stream.

        Such a part is never empty.
        """
        limit = self.kind.max_stream_bytes
        if limit is not None and len(response.body) > limit:
            return self._too_large(len(response.body), limit)
        return response if response.body else _with_a_body(response)

    def headers_of(self, answer: Response | StreamResponse) -> dict[str, str]:
        """Returns the answer's headers with those that identify it."""
        return {**answer.headers, **identifying_headers(self.log.id, self.log.cold)}

    async def _whole_response(self, seconds: float) -> Response:
        return await read_whole(await self.answer(seconds))

    def _failure_to_raise(self, response: Response) -> RequestError | None:
        """Retries, Catch and dead-letter queues see only what is raised: an answer is a success."""
        failure = response.failure
        if not self.kind.is_invoke or failure is None:
            return None
        return failure if failure.status in WORTH_A_RETRY or failure.status >= 500 else None

    def _payload(self, response: Response, encode: Encode) -> Payload:
        value = self.kind.write(replace(response, headers=self.headers_of(response)))
        return Payload(value, encode(value))

    def _authorised(self, request: Request) -> Request:
        """A direct invoke has no headers: IAM's lambda:InvokeFunction has authorised it already."""
        key = self.service.settings.api_key
        if key is None or not self.kind.is_invoke:
            return request
        return replace(request, headers={**request.headers, "authorization": f"Bearer {key}"})

    def _deadline(self, seconds: float) -> float:
        if self.kind.max_seconds is not None:
            seconds = min(seconds, self.kind.max_seconds)
        return time.monotonic() + max(seconds - DEADLINE_MARGIN_SECONDS, seconds / 2)

    def _too_large(self, size: int, limit: int) -> Response:
        error = ResponseTooLarge(
            f"The answer of {size:,} bytes is over what can be carried back, "
            f"{limit:,} bytes: ask for fewer tokens or inputs, for base64 in place of numbers, "
            f"or for an answer that is not streamed."
        )
        request = self.request if isinstance(self.request, Request) else None
        return self.service.api.refuse(error, request)


async def read_whole(answer: Response | StreamResponse) -> Response:
    """Returns the answer with all chunks of a stream as one body."""
    if isinstance(answer, Response):
        return answer
    body = b"".join([chunk async for chunk in answer.chunks])
    return Response(answer.status, answer.headers, body, answer.usage, failure=answer.failure)


def _with_trace(request: Request, trace_id: str | None) -> Request:
    if trace_id is None or TRACE_HEADER in request.headers:
        return request
    return replace(request, headers={**request.headers, TRACE_HEADER: trace_id})


def _with_a_body(response: Response) -> Response:
    status = 200 if response.status in WITHOUT_BODY else response.status
    headers = {"content-type": "text/plain", **response.headers}
    return replace(response, status=status, headers=headers, body=SHORTEST_BODY)
