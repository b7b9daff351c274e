"""The Runtime API: where invocations come from and where answers go.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html and, for streams and concurrency,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html. Knows no event and no answer.
One object serves one thread. Called by invocation.py, pollers.py and __main__.py.
"""

from __future__ import annotations

import base64
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from handlers.lambda_runtime.wire import Connection, Reply, chunk, last_chunk

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

RUNTIME = "/2018-06-01/runtime"
NEXT = f"{RUNTIME}/invocation/next"
RESTORE = f"{RUNTIME}/restore/next"
AGENT = {"user-agent": "kindling"}
JSON = {"content-type": "application/json"}
ERROR_TYPE = "lambda-runtime-function-error-type"
ERROR_BODY = "lambda-runtime-function-error-body"
ATTEMPT = "lambda-runtime-invocation-id"

# A function URL in RESPONSE_STREAM mode takes status and headers in front of the body, and eight
# NUL bytes between them.
STREAM = {
    "content-type": "application/vnd.awslambda.http-integration-response",
    "lambda-runtime-function-response-mode": "streaming",
    "trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}
PRELUDE_END = bytes(8)

# Asked in vain once more after each of these pauses, the Runtime API is gone.
RETRY_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)
# A connection that lived this long was a good one: between two invocations it may die of age.
LIVED_SECONDS = 1.0


class Gone(Exception):
    """There will be no further invocation: the process may end."""


class Fault(msgspec.Struct, frozen=True):
    """An error as Lambda shows it."""

    type: str
    message: str

    @property
    def body(self) -> bytes:
        """Lambda's JSON for it."""
        error = {"errorMessage": self.message, "errorType": self.type, "stackTrace": []}
        return msgspec.json.encode(error)


class Invocation(msgspec.Struct, frozen=True):
    """What is to be answered."""

    id: str
    event: bytes
    deadline_ms: int
    """Unix time in milliseconds at which Lambda kills the process."""
    labels: Mapping[str, str]
    """Headers that come back with the answer."""

    @property
    def seconds(self) -> float:
        """What is left until the deadline."""
        return self.deadline_ms / 1000 - time.time()

    def path(self, what: str) -> str:
        """Where its `response` or its `error` goes."""
        return f"{RUNTIME}/invocation/{self.id}/{what}"


class RuntimeApi:
    """The calls, over a connection that is opened anew whenever it has been lost."""

    def __init__(self, address: str) -> None:
        """`address`: host and port, as AWS_LAMBDA_RUNTIME_API has them."""
        self._address = address
        self._idle: Connection | None = None

    def next(self) -> Invocation:
        """Waits for an invocation, over as many connections as it takes. Raises Gone."""
        pauses = iter(RETRY_SECONDS)
        while True:
            asked = time.monotonic()
            try:
                return _invocation(self._call("GET", NEXT))
            except OSError as error:
                log.warning("No invocation came: %s", error)
                if time.monotonic() - asked > LIVED_SECONDS:
                    pauses = iter(RETRY_SECONDS)
                pause = next(pauses, None)
                if pause is None:
                    raise Gone(f"{self._address} hands out no invocations: {error}") from error
                time.sleep(pause)

    def respond(self, invocation: Invocation, body: bytes) -> None:
        """Posts a whole answer."""
        self._post(invocation.path("response"), {**JSON, **invocation.labels}, body)

    def fail(self, invocation: Invocation, fault: Fault) -> None:
        """Posts an error in the answer's place."""
        headers = {**JSON, **invocation.labels, ERROR_TYPE: fault.type}
        self._post(invocation.path("error"), headers, fault.body)

    def stream(self, invocation: Invocation, status: int, headers: Mapping[str, str]) -> Stream:
        """Begins an answer that leaves in chunks. Raises OSError, as the stream itself does."""
        prelude = msgspec.json.encode({"statusCode": status, "headers": dict(headers)})
        stream = Stream(Connection(self._address))
        try:
            stream.begin(invocation, prelude + PRELUDE_END)
        except OSError:
            stream.close()
            raise
        return stream

    def fail_start(self, fault: Fault) -> None:
        """Reports that the process cannot serve."""
        self._post(f"{RUNTIME}/init/error", {**JSON, ERROR_TYPE: fault.type}, fault.body)

    def wait_for_restore(self) -> None:
        """Returns in each copy of the process that comes from its snapshot. Raises OSError."""
        reply = self._call("GET", RESTORE)
        self.close()
        if reply.status != 200:
            raise ConnectionError(f"{RESTORE} answered {reply.status}: {reply.body[:200]!r}")

    def close(self) -> None:
        """Forgets the open connection."""
        if self._idle is not None:
            self._idle.close()
        self._idle = None

    def _post(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Twice if need be: the connection may have died since the invocation came."""
        for _ in range(2):
            try:
                reply = self._call("POST", path, headers, body)
            except OSError as error:
                log.warning("The answer to %s was not taken: %s", path, error)
            else:
                warn_unless_accepted(path, reply)
                return

    def _call(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        connection, self._idle = self._idle or Connection(self._address), None
        try:
            reply = connection.request(method, path, {**AGENT, **(headers or {})}, body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle = connection
        else:
            connection.close()
        return reply


class Stream:
    """An answer on its way. Every method may raise OSError; `close` is the caller's in any case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self, invocation: Invocation, prelude: bytes) -> None:
        """What goes before the first part."""
        headers = {**AGENT, **STREAM, **invocation.labels}
        self._connection.begin_chunked(invocation.path("response"), headers)
        self.send(prelude)

    @property
    def refused(self) -> bool:
        """Whether nobody reads on: the client or the connection is gone."""
        return self._connection.interrupted()

    def send(self, data: bytes) -> None:
        """The next part."""
        if data:
            self._connection.send(chunk(data))

    def end(self, fault: Fault | None) -> None:
        """The last part has been sent; `fault`: why nothing follows it, where it broke."""
        trailers = {} if fault is None else {ERROR_TYPE: fault.type, ERROR_BODY: _base64(fault)}
        self._connection.send(last_chunk(trailers))
        warn_unless_accepted("a stream", self._connection.reply())

    def close(self) -> None:
        """What has been sent stays sent; without `end` the answer is cut."""
        self._connection.close()


def warn_unless_accepted(what: str, reply: Reply) -> None:
    """Lambda takes no second answer, and none that comes too late. The next invocation may come."""
    if reply.status != 202:
        log.warning("Lambda answered %d to %s: %r", reply.status, what, reply.body[:200])


def _invocation(reply: Reply) -> Invocation:
    """Raises OSError for an answer that is no invocation."""
    try:
        return Invocation(
            id=reply.headers["lambda-runtime-aws-request-id"],
            event=reply.body,
            deadline_ms=int(reply.headers["lambda-runtime-deadline-ms"]),
            labels={name: reply.headers[name] for name in (ATTEMPT,) if name in reply.headers},
        )
    except (KeyError, ValueError):
        raise ConnectionError(f"{NEXT} answered {reply.status}: {reply.body[:200]!r}") from None


def _base64(fault: Fault) -> str:
    return base64.b64encode(fault.body).decode()
