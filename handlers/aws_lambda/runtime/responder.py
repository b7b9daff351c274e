"""One invocation, from the event to its posted answer.

A function URL, and a REST API that is set so, gets every answer in the form of a stream, and a chat
that is to be streamed event by event; all else leaves whole. Knows no tokens; how the API's
coroutines are run is the poller's to say.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from handlers.api.error_responses import client_message
from handlers.api.http import Response, StreamResponse
from handlers.aws_lambda.invocation import Call, joined
from handlers.aws_lambda.runtime.protocol import Fault, Gone, NotTaken, Refused
from handlers.errors import EngineFault, RequestError, as_request_error
from handlers.log import CLIENT_CLOSED_REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from handlers.aws_lambda.runtime.client import RuntimeApi
    from handlers.aws_lambda.runtime.protocol import Invocation
    from handlers.aws_lambda.runtime.response_stream import Stream
    from handlers.startup import Service

T = TypeVar("T")

log = logging.getLogger(__name__)

# An answer that Lambda would not take, in the log alone: to the client Lambda says it itself.
BAD_GATEWAY = 502

# Lambda takes it where it has seen nothing of the answer, and would wait for it else.
NOT_TAKEN = Fault("AnswerNotTaken", "The answer was refused or cut on its way.", "Runtime")


class Run(Protocol):
    """Runs a coroutine of the API's to its end, from a thread without an event loop."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


def serve(service: Service, run: Run, api: RuntimeApi, invocation: Invocation) -> None:
    """Answers it. Whatever goes wrong is told to Lambda and to the log. Raises Gone."""
    try:
        _answer(service, run, api, invocation)
    except (Gone, SystemExit, KeyboardInterrupt):
        raise
    except NotTaken as error:
        log.warning("An answer was not taken: %s", error)
        api.fail(invocation, NOT_TAKEN)
    except BaseException as error:  # a panic in Rust is no Exception
        fault = _fault_of(error)
        if isinstance(error, RequestError):
            log.error("An invocation ends with an error: %s", fault.shown)
        else:
            log.exception("An invocation failed.")
        api.fail(invocation, fault)


def _answer(service: Service, run: Run, api: RuntimeApi, invocation: Invocation) -> None:
    call = Call.of(service, invocation.event, invocation.id, invocation.trace_id)
    answer = run(call.answer(service, invocation.seconds))
    if not call.streams:
        delivery = call.deliver(service, run(joined(answer)), msgspec.json.encode)
        api.respond(invocation, delivery.posted)
    elif isinstance(answer, StreamResponse):
        _stream(call, answer, run, api, invocation)
    else:
        whole = call.labelled(call.fit_for_stream(service, answer))
        call.access.done(whole.status, whole.usage)
        api.respond_as_stream(invocation, whole.status, whole.headers, whole.body)


def _stream(
    call: Call, answer: StreamResponse, run: Run, api: RuntimeApi, invocation: Invocation
) -> None:
    """However it ends, its generation ends with it. Raises NotTaken."""
    status = EngineFault.status
    try:
        head = call.labelled(Response(answer.status, answer.headers, b""))
        with closing(api.stream(invocation, head.status, head.headers)) as stream:
            _pass_on(answer, run, stream)
        status = answer.status
    except Refused:
        status = BAD_GATEWAY
        raise
    except OSError as error:
        status = CLIENT_CLOSED_REQUEST
        raise NotTaken(str(error)) from None
    finally:
        run(_close(answer.chunks))
        call.access.done(status, answer.usage)


def _pass_on(answer: StreamResponse, run: Run, stream: Stream) -> None:
    """Raises OSError and Refused where it cannot."""
    while (part := run(_next(answer.chunks))) is not None:
        stream.look()
        stream.send(part)
    stream.end(_fault_of(answer.failures[0]) if answer.failures else None)


def _fault_of(error: BaseException) -> Fault:
    """Nothing of an internal error leaves."""
    known = as_request_error(error)
    return Fault(type(known).__name__, client_message(known))


async def _next(chunks: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
