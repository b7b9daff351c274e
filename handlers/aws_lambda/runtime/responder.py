"""Serves one invocation: answers its event and posts the response.

A function URL, and a REST API that is set so, gets every response in the form of a stream, and an
answer that streams event by event; every other sender gets one whole value.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from handlers.api.error_responses import client_message
from handlers.api.http import StreamResponse
from handlers.aws_lambda.invocation import Invocation
from handlers.aws_lambda.runtime.protocol import (
    ErrorReport,
    ResponseNotDelivered,
    ResponseRejected,
    RuntimeApiUnavailable,
)
from handlers.errors import EngineFault, RequestError, as_request_error
from handlers.log import CLIENT_CLOSED_REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from handlers.aws_lambda.invocation import Run
    from handlers.aws_lambda.runtime.client import RuntimeClient
    from handlers.aws_lambda.runtime.protocol import InvocationRequest
    from handlers.aws_lambda.runtime.response_stream import ResponseStream
    from handlers.startup import Service

log = logging.getLogger(__name__)

# The logged status of a response that Lambda rejected; the client gets Lambda's own.
BAD_GATEWAY = 502

# Posted after a response that failed midway: Lambda accepts an error only if it received no part of
# the response, and otherwise would wait.
NOT_DELIVERED = ErrorReport(
    "AnswerNotTaken", "The answer was refused or cut on its way.", "Runtime"
)


def serve(service: Service, run: Run, client: RuntimeClient, received: InvocationRequest) -> None:
    """Answers an invocation; whatever fails is reported to Lambda and logged.

    `run` runs the API's coroutines. Raises RuntimeApiUnavailable.
    """
    try:
        _respond(service, run, client, received)
    except (RuntimeApiUnavailable, SystemExit, KeyboardInterrupt):
        raise
    except ResponseNotDelivered as error:
        log.warning("An answer was not taken: %s", error)
        client.report_error(received, NOT_DELIVERED)
    except BaseException as error:  # a panic in Rust is no Exception
        report = _report_of(error)
        if isinstance(error, RequestError):
            log.error("An invocation ends with an error: %s", report.shown)
        else:
            log.exception("An invocation failed.")
        client.report_error(received, report)


def _respond(
    service: Service, run: Run, client: RuntimeClient, received: InvocationRequest
) -> None:
    invocation = Invocation.of(service, received.event, received.id, received.trace_id)
    if not invocation.streams:
        payload = invocation.respond(run, received.seconds_left, msgspec.json.encode)
        client.respond(received, payload.encoded)
        return
    answer = run(invocation.answer(received.seconds_left))
    if isinstance(answer, StreamResponse):
        _stream(invocation, answer, run, client, received)
        return
    whole = invocation.as_one_part(answer)
    invocation.log.log_completed(whole.status, whole.usage)
    client.respond_as_stream(received, whole.status, invocation.headers_of(whole), whole.body)


def _stream(
    invocation: Invocation,
    answer: StreamResponse,
    run: Run,
    client: RuntimeClient,
    received: InvocationRequest,
) -> None:
    """Posts a stream. However it ends, its generation ends too. Raises ResponseNotDelivered."""
    status = EngineFault.status
    try:
        headers = invocation.headers_of(answer)
        with closing(client.open_stream(received, answer.status, headers)) as stream:
            _send_chunks(answer, run, stream)
        status = answer.status
    except ResponseRejected:
        status = BAD_GATEWAY
        raise
    except OSError as error:
        status = CLIENT_CLOSED_REQUEST
        raise ResponseNotDelivered(str(error)) from None
    finally:
        run(_close(answer.chunks))
        invocation.log.log_completed(status, answer.usage)


def _send_chunks(answer: StreamResponse, run: Run, stream: ResponseStream) -> None:
    """Sends all chunks and ends the stream. Raises OSError and ResponseRejected."""
    while (chunk := run(_next(answer.chunks))) is not None:
        stream.check_peer()
        stream.send(chunk)
    stream.end(_report_of(answer.failure) if answer.failure else None)


def _report_of(error: BaseException) -> ErrorReport:
    """Returns what Lambda may know of an error: nothing of an internal one."""
    known = as_request_error(error)
    return ErrorReport(type(known).__name__, client_message(known))


async def _next(chunks: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
