"""A stand-in for Lambda's side of the Runtime API that lets nothing pass.

Every request is held to the protocol, header by header and chunk by chunk; what breaks it is
written down, and leaving the context raises it. It can lose a connection wherever a test says.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from queue import Empty, Queue
from types import TracebackType
from typing import IO

from tests.support.invocations import Cut, Invoked, Posted
from tests.support.runtime_wire import (
    BrokenProtocol,
    Lost,
    demand,
    discard,
    has_left,
    read_chunks,
    read_fields,
    reply,
)
from tests.support.servers import NULS, PATIENCE_SECONDS

RUNTIME = "/2018-06-01/runtime"
FUNCTION_SECONDS = 900.0
ERROR_TRAILERS = {"lambda-runtime-function-error-type", "lambda-runtime-function-error-body"}
# The emulator, and so Lambda, keeps no other: internal/lambda/fatalerror/fatalerror.go.
ERROR_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")
STREAM_HEADERS = {
    "content-type": "application/vnd.awslambda.http-integration-response",
    "lambda-runtime-function-response-mode": "streaming",
    "transfer-encoding": "chunked",
    "connection": "close",
}


class RuntimeApi:
    """A context: it listens on `address` while entered."""

    def __init__(
        self,
        concurrency: int = 1,
        invoke_mode: str = "RESPONSE_STREAM",
        transfer_mode: str = "BUFFERED",
    ) -> None:
        """Takes answers in these forms: `invoke_mode` of a function URL, `transfer_mode` of a
        REST API."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.violations: list[str] = []
        self.start_errors: Queue[tuple[str, bytes]] = Queue()
        self.restore_errors: Queue[tuple[str, bytes]] = Queue()
        self.restoring = threading.Event()
        """Set once the runtime is ready to be copied."""
        self.restored = threading.Event()
        self.connections = 0
        self.most_at_once = 0
        self._concurrency = concurrency
        self._url_streams = invoke_mode == "RESPONSE_STREAM"
        self._rest_streams = transfer_mode == "STREAM"
        self._initialised = False
        self._asking: set[socket.socket] = set()
        self._cuts: Queue[Cut] = Queue()
        self._events: Queue[Invoked] = Queue()
        self._open: dict[str, Invoked] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    def __enter__(self) -> RuntimeApi:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self.close()
        if self.violations and kind is None:
            raise BrokenProtocol("; ".join(self.violations))

    def close(self) -> None:
        """Ends as Lambda does when it takes the sandbox away."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    @property
    def asked_for(self) -> bool:
        """Returns whether the runtime waits for an invocation."""
        return bool(self._asking)

    def send(
        self,
        event: object,
        seconds: float | None = FUNCTION_SECONDS,
        refused_with: int | None = None,
    ) -> Invoked:
        """Hands an invocation to the next that asks."""
        self._count += 1
        name = f"request-{self._count}"
        invoked = Invoked(name, json.dumps(event).encode(), seconds, refused_with=refused_with)
        self._events.put(invoked)
        return invoked

    def cut(self, where: Cut) -> None:
        """Loses one connection at the next such place."""
        self._cuts.put(where)

    @property
    def all_cut(self) -> bool:
        """Returns whether each connection that was to be lost has been."""
        return self._cuts.empty()

    def cut_all(self) -> None:
        """Loses every connection now."""
        with self._lock:
            self._asking.clear()
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)
        try:
            with connection, connection.makefile("rb") as stream:
                while self._exchange(connection, stream):
                    pass
        except (OSError, Lost):
            pass
        except BrokenProtocol as error:
            self.violations.append(str(error))
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _exchange(self, connection: socket.socket, stream: IO[bytes]) -> bool:
        """One request and its answer. False where the connection has ended."""
        line = stream.readline()
        if not line:
            return False
        method, path, version = line.decode().rstrip("\r\n").split(" ")
        headers = read_fields(stream)
        demand(version == "HTTP/1.1", f"{version} in {line!r}")
        demand(headers.get("host") == self.address, f"the host is {headers.get('host')}")
        if method == "GET":
            demand(headers.get("content-length", "0") == "0", "a body in a GET")
            self._initialised = True
            return self._get(connection, path)
        demand(method == "POST", f"{method} {path}")
        return self._post(connection, stream, path, headers)

    def _get(self, connection: socket.socket, path: str) -> bool:
        if path == f"{RUNTIME}/restore/next":
            self.restoring.set()
            self._lose_if(Cut.BEFORE_RESTORE)
            self.restored.wait(PATIENCE_SECONDS)
            if self._cuts_at(Cut.REPLY_OF_RESTORE):
                connection.sendall(reply(200, b"{}")[:20])
                raise Lost
            connection.sendall(reply(200, b"{}"))
            return True
        demand(path == f"{RUNTIME}/invocation/next", f"GET {path}")
        self._lose_if(Cut.BEFORE_NEXT)
        invoked = self._next_event(connection)
        content = reply(200, invoked.event, self._invocation_headers(invoked))
        if self._cuts_at(Cut.HEAD_OF_NEXT):
            connection.sendall(content[:40])
            raise Lost
        if self._cuts_at(Cut.BODY_OF_NEXT):
            connection.sendall(content[: -len(invoked.event) // 2])
            raise Lost
        with self._lock:
            self._open[invoked.id] = invoked
            self.most_at_once = max(self.most_at_once, len(self._open))
        connection.sendall(content)
        return True

    def _next_event(self, connection: socket.socket) -> Invoked:
        """Waits for an event for as long as the runtime does."""
        with self._lock:
            self._asking.add(connection)
            busy = len(self._asking) + len(self._open)
        demand(busy <= self._concurrency, f"{busy} invocations at once are more than it may take")
        try:
            while not has_left(connection):
                with contextlib.suppress(Empty):
                    invoked = self._events.get(timeout=0.02)
                    if not has_left(connection):
                        return invoked
                    self._events.put(invoked)
            raise Lost
        finally:
            with self._lock:
                self._asking.discard(connection)

    def _invocation_headers(self, invoked: Invoked) -> dict[str, str]:
        deadline = {}
        if invoked.seconds is not None:
            milliseconds = int((time.time() + invoked.seconds) * 1000)
            deadline = {"Lambda-Runtime-Deadline-Ms": str(milliseconds)}
        return deadline | {
            "Lambda-Runtime-Aws-Request-Id": invoked.id,
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:::function:kindling",
            "Lambda-Runtime-Trace-Id": invoked.trace_id,
            "Lambda-Runtime-Invocation-Id": f"attempt-of-{invoked.id}",
        }

    def _post(
        self, connection: socket.socket, stream: IO[bytes], path: str, headers: dict[str, str]
    ) -> bool:
        if path in (f"{RUNTIME}/init/error", f"{RUNTIME}/restore/error"):
            return self._post_start_error(connection, stream, path, headers)
        start, _, rest = path.partition("/invocation/")
        name, _, what = rest.partition("/")
        demand(start == RUNTIME and what in ("response", "error"), f"POST {path}")
        self._lose_if(Cut.BEFORE_BODY)
        invoked = self._open.get(name)
        if invoked is None:
            discard(stream, headers)
            connection.sendall(reply(400, b'{"errorType":"InvalidRequestID"}'))
            return True
        attempt = headers.get("lambda-runtime-invocation-id")
        demand(attempt == f"attempt-of-{name}", f"the attempt of {name} is named {attempt}")
        if what == "response" and invoked.refused_with is not None:
            return self._refuse(connection, stream, headers, invoked.refused_with)
        posted = self._read_post(stream, what, headers, invoked)
        with self._lock:
            del self._open[name]
        if self._cuts_at(Cut.BEFORE_REPLY):
            invoked.posted.put(posted)
            raise Lost
        return self._acknowledge(connection, stream, invoked, posted)

    def _post_start_error(
        self, connection: socket.socket, stream: IO[bytes], path: str, headers: dict[str, str]
    ) -> bool:
        body = stream.read(int(headers["content-length"]))
        of_start = path.endswith("/init/error")
        demand(of_start != self._initialised, f"{path} at the wrong stage")
        demand(of_start or self.restored.is_set(), f"{path} before the restore")
        errors = self.start_errors if of_start else self.restore_errors
        errors.put((headers["lambda-runtime-function-error-type"], body))
        connection.sendall(reply(202, b'{"status":"OK"}'))
        return True

    def _refuse(
        self, connection: socket.socket, stream: IO[bytes], headers: dict[str, str], status: int
    ) -> bool:
        """A stream is refused in its midst, and read on until the runtime closes it."""
        refusal = reply(status, b'{"errorMessage":"the reason"}')
        if "transfer-encoding" not in headers:
            discard(stream, headers)
            connection.sendall(refusal)
            return True
        for count, _ in enumerate(read_chunks(stream), 1):
            if count == 2:
                connection.sendall(refusal)
        raise Lost

    def _read_post(
        self, stream: IO[bytes], what: str, headers: dict[str, str], invoked: Invoked
    ) -> Posted:
        if what == "error":
            kind = headers.get("lambda-runtime-function-error-type", "")
            demand(ERROR_TYPE.fullmatch(kind) is not None, f"an error of the type {kind!r}")
        else:
            streams = invoked.through_url and self._url_streams
            streams = streams or (invoked.through_rest_api and self._rest_streams)
            demand(("transfer-encoding" in headers) == streams, f"{headers} to {invoked.event!r}")
        if "transfer-encoding" not in headers:
            demand(headers.get("content-type") == "application/json", f"{headers} of a whole body")
            body = stream.read(int(headers["content-length"]))
            json.loads(body)
            return Posted(what, headers, body, {})
        demand("content-length" not in headers, "a length of a chunked body")
        for name, value in STREAM_HEADERS.items():
            demand(headers.get(name) == value, f"{name} is {headers.get(name)}")
        announced = {each.strip().lower() for each in headers.get("trailer", "").split(",")}
        demand(announced == ERROR_TRAILERS, f"the trailers announced are {announced}")
        body = b""
        for count, chunk in enumerate(read_chunks(stream), 1):
            body += chunk
            invoked.chunks.put(chunk)
            if count == invoked.stop_after:
                with self._lock:
                    del self._open[invoked.id]
                invoked.stopped.set()
                raise Lost
        prelude, _, content = body.partition(NULS)
        demand(content != b"", "an answer without a body, which leaves a URL's client waiting")
        status = json.loads(prelude)["statusCode"]
        demand(status not in (204, 304), f"a body after the status {status}")
        trailers = read_fields(stream)
        demand(set(trailers) in (set(), ERROR_TRAILERS), f"the trailers are {trailers}")
        return Posted(what, headers, body, trailers)

    def _acknowledge(
        self, connection: socket.socket, stream: IO[bytes], invoked: Invoked, posted: Posted
    ) -> bool:
        content = reply(202, b'{"status":"OK"}')
        if self._cuts_at(Cut.BODY_OF_REPLY):
            connection.sendall(content[:-5])
            invoked.posted.put(posted)
            raise Lost
        connection.sendall(content)
        if posted.streamed:
            demand(stream.read(1) == b"", "the connection of a stream stays open")
        invoked.posted.put(posted)
        self._lose_if(Cut.IDLE)
        return not posted.streamed

    def _cuts_at(self, where: Cut) -> bool:
        with self._lock:
            if self._cuts.queue and self._cuts.queue[0] is where:
                self._cuts.get()
                return True
        return False

    def _lose_if(self, where: Cut) -> None:
        if self._cuts_at(where):
            raise Lost
