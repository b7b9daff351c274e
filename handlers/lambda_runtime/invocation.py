"""One invocation, from the event to its posted answer.

A chat that is to be streamed leaves in chunks where its sender can pass them on; all else leaves
whole. Knows no tokens; how the API's coroutines are run is the poller's to say.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from handlers.api.error_body import known_as, message_of
from handlers.api.messages import Response, StreamResponse
from handlers.errors import RequestError
from handlers.lambda_call import Call, joined
from handlers.lambda_runtime.api import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from handlers.lambda_runtime.api import Invocation, RuntimeApi, Stream
    from handlers.startup import Service

T = TypeVar("T")

log = logging.getLogger(__name__)

# nginx's status for a client that left before its answer; only the log ever sees it.
CLIENT_CLOSED_REQUEST = 499


class Run(Protocol):
    """Runs a coroutine of the API's to its end, from a thread without an event loop."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


def serve(service: Service, run: Run, api: RuntimeApi, invocation: Invocation) -> None:
    """Answers it. Whatever goes wrong is told to Lambda or to the log: never raises Exception."""
    try:
        call = Call.of(invocation.event, invocation.id)
        answer = run(call.answer(service, invocation.seconds))
        if call.kind.streams and isinstance(answer, StreamResponse):
            _stream(call, answer, run, api, invocation)
        else:
            result = call.deliver(service, run(joined(answer)))
            api.respond(invocation, msgspec.json.encode(result))
    except RequestError as error:
        log.error("An invocation is no request: %s", error)
        api.fail(invocation, Fault(type(error).__name__, str(error)))
    except Exception as error:
        log.exception("An invocation failed.")
        api.fail(invocation, Fault(type(error).__name__, str(error)))


def _stream(
    call: Call, answer: StreamResponse, run: Run, api: RuntimeApi, invocation: Invocation
) -> None:
    """However it ends, its generation ends with it."""
    status = CLIENT_CLOSED_REQUEST
    try:
        head = call.labelled(Response(answer.status, answer.headers, b""))
        stream = api.stream(invocation, head.status, head.headers)
        try:
            if _pass_on(answer, run, stream):
                status = answer.status
        finally:
            stream.close()
    except OSError as error:
        log.warning("A stream was cut: %s", error)
    finally:
        run(_close(answer.chunks))
        call.access.done(status)
    if status == CLIENT_CLOSED_REQUEST:
        # Lambda takes it where it has seen nothing of the stream, and would wait for it else.
        api.fail(invocation, Fault("Runtime.StreamCut", "The stream was cut."))


def _pass_on(answer: StreamResponse, run: Run, stream: Stream) -> bool:
    """Whether all of it has left. Raises OSError."""
    while (part := run(_next(answer.chunks))) is not None:
        if stream.refused:
            return False
        stream.send(part)
    stream.end(_fault(answer))
    return True


def _fault(answer: StreamResponse) -> Fault | None:
    if not answer.failures:
        return None
    known = known_as(answer.failures[0])
    return Fault(type(known).__name__, message_of(known))


async def _next(chunks: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
