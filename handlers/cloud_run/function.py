r"""The function that functions-framework calls for each request; importing it loads the model.

    FUNCTION_TARGET=handler FUNCTION_SOURCE=handlers/cloud_run/function.py \
        python -m handlers.cloud_run

functions-framework executes this file while the server starts, so the port opens only once the
model is loaded. docs/adapters.md says why one process, and what happens on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

import functions_framework.aio
from msgspec.structs import replace
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from handlers.api.http import Request, Response, StreamResponse, identifying_headers, request_id
from handlers.api.routes import HEALTH_PATHS
from handlers.cloud_run.slow_clients import BodyReader
from handlers.config import Settings
from handlers.errors import RequestTimeout, StartupError, ends_a_task
from handlers.log import CLIENT_CLOSED_REQUEST, RequestLog, enable_loggers
from handlers.startup import Service, load_service

T = TypeVar("T")


def load() -> Service:
    """Loads the model and starts the engine's thread, or ends the process with one line.

    Raising would not end the process: uvicorn takes whatever a lifespan raises, SystemExit too,
    for an application without a lifespan, opens the port and answers 500 for ever.
    """
    enable_loggers()  # with LOG_EXECUTION_ID functions-framework has called dictConfig just before
    try:
        service = load_service(Settings.from_environ())
    except StartupError as error:
        _exit(f"Kindling cannot start: {error}\n")
    except Exception:  # noqa: BLE001 - a bug, and the same trap
        _exit(traceback.format_exc())
    service.engine.start()
    return service


def _exit(message: str) -> NoReturn:
    sys.stderr.write(message)
    sys.stderr.flush()
    os._exit(1)


@functions_framework.aio.http
async def handler(http_request: HttpRequest) -> HttpResponse:
    """Answers one request. If its client disconnects, its generation is cancelled."""
    identity = request_id(http_request.headers, uuid.uuid4().hex)
    path = http_request.scope["path"]
    new_log = RequestLog.of_probe if path in HEALTH_PATHS else RequestLog
    log = new_log(identity, http_request.method, path)
    try:
        answer = await answer_to(http_request, identity)
    except ClientDisconnect:
        answer = Response(CLIENT_CLOSED_REQUEST, {}, b"")
    except BaseException as error:
        if ends_a_task(error):
            raise
        answer = SERVICE.api.refuse(error, head_of(http_request, identity))
        if isinstance(error, RequestTimeout):
            answer = closing_the_connection(answer)
    return to_http_response(answer, log)


async def answer_to(http_request: HttpRequest, identity: str) -> Response | StreamResponse:
    """Returns the API's answer. Reads no body if the head decides it, as without the API key.

    Raises what BodyReader.read does.
    """
    admitted = SERVICE.api.admit(head_of(http_request, identity))
    if isinstance(admitted, Response):
        # A client that asked whether to send its body may now send it or the next request.
        return closing_the_connection(admitted) if "expect" in http_request.headers else admitted
    body = await BODIES.read(http_request)
    return await cancel_on_disconnect(SERVICE.api.answer(admitted, body), http_request.receive)


def head_of(http_request: HttpRequest, identity: str) -> Request:
    """Returns the request without its body. `identity`: its id."""
    return Request(
        method=http_request.method,
        path=http_request.scope["path"],
        query=dict(http_request.query_params),
        headers=dict(http_request.headers),
        body=b"",
        deadline=time.monotonic() + SERVICE.settings.timeout_seconds,
        id=identity,
    )


def closing_the_connection(answer: Response) -> Response:
    """Returns the answer with a header that closes the connection after it."""
    return replace(answer, headers={**answer.headers, "connection": "close"})


async def cancel_on_disconnect(answering: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Returns the coroutine's result, or cancels it and raises ClientDisconnect."""
    answer = asyncio.ensure_future(answering)
    disconnect = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((answer, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        disconnect.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def to_http_response(answer: Response | StreamResponse, log: RequestLog) -> HttpResponse:
    """Returns the answer as starlette sends it. Logs it, or lets the stream do so at its end."""
    headers = {**answer.headers, **identifying_headers(log.id, log.cold)}
    if isinstance(answer, StreamResponse):
        return ChunkStream(answer, headers, log)
    log.log_completed(answer.status, answer.usage)
    if answer.left_out is not None:
        headers["content-length"] = str(answer.left_out)
    return HttpResponse(answer.body, answer.status, headers)


class ChunkStream(StreamingResponse):
    """Sends chunks as they are made. However the stream ends, its generation ends with it."""

    def __init__(self, answer: StreamResponse, headers: Mapping[str, str], log: RequestLog) -> None:
        super().__init__(answer.chunks, answer.status, headers)
        self._answer = answer
        self._log = log
        self._logged_status = CLIENT_CLOSED_REQUEST

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the end or until the client leaves, for which StreamingResponse watches."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answer.chunks.aclose()
            self._log.log_completed(self._logged_status, self._answer.usage)

    async def stream_response(self, send: Send) -> None:
        """Sends all chunks; StreamingResponse cancels this when the client leaves."""
        await super().stream_response(send)
        self._logged_status = self.status_code


def drain_on_signals(service: Service, bodies: BodyReader) -> None:
    """At SIGTERM or Ctrl-C gives running answers `drain_seconds` to finish; at a second one, none.

    uvicorn has its handler in place by now: it stops accepting, waits for its connections, and
    then raises each signal that it caught once more, so that after SIGTERM even a clean end has
    status 143. Called with SIGINT instead, it ends with status 0.

    The event loop calls `drain` between two steps of its own. A handler of the signal module would
    interrupt it anywhere, also where it holds a lock that the handler needs.
    """
    stop_accepting = signal.getsignal(signal.SIGTERM)
    draining = False

    def drain() -> None:
        nonlocal draining
        seconds = 0.0 if draining else service.settings.drain_seconds
        if not draining and callable(stop_accepting):
            stop_accepting(signal.SIGINT, None)
        draining = True
        threading.Thread(target=service.engine.stop, args=(seconds,), daemon=True).start()
        bodies.end_within(seconds)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, drain)
    loop.add_signal_handler(signal.SIGINT, drain)


SERVICE = load()
BODIES = BodyReader(SERVICE.settings.max_body_bytes, SERVICE.settings.request_seconds)
drain_on_signals(SERVICE, BODIES)
