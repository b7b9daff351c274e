"""A stand-in for Lambda's side of the Runtime API that lets nothing pass.

Every request is held to the protocol, header by header and chunk by chunk; what breaks it is
written down, and leaving the context raises it. It can lose a connection wherever a test says.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
"""

from __future__ import annotations

import contextlib
import enum
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, Queue
from types import TracebackType
from typing import IO

from tests.support.servers import PATIENCE_SECONDS

RUNTIME = "/2018-06-01/runtime"
FUNCTION_SECONDS = 900.0
ERROR_TRAILERS = {"lambda-runtime-function-error-type", "lambda-runtime-function-error-body"}
STREAM_HEADERS = {
    "content-type": "application/vnd.awslambda.http-integration-response",
    "lambda-runtime-function-response-mode": "streaming",
    "transfer-encoding": "chunked",
    "connection": "close",
}


class Cut(enum.Enum):
    """Where a connection is lost."""

    BEFORE_NEXT = "asked for an invocation"
    HEAD_OF_NEXT = "amid the head of an invocation"
    BODY_OF_NEXT = "amid the event"
    BEFORE_BODY = "before the answer's body has been read"
    BEFORE_REPLY = "the answer has been read and is not acknowledged"
    BODY_OF_REPLY = "amid the acknowledgement"
    IDLE = "after the acknowledgement"


@dataclass(frozen=True)
class Posted:
    """What came in answer to an invocation, whole."""

    what: str
    """`response` or `error`."""
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str]

    @property
    def streamed(self) -> bool:
        return "transfer-encoding" in self.headers


@dataclass
class Invoked:
    """An invocation on its way, from the client's side."""

    id: str
    event: bytes
    seconds: float
    chunks: Queue[bytes] = field(default_factory=Queue)
    posted: Queue[Posted] = field(default_factory=Queue)
    stop_after: int | None = None
    """Chunks after which nobody reads on."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def chunk(self) -> bytes:
        """The next chunk, while the rest is still being made."""
        return self.chunks.get(timeout=PATIENCE_SECONDS)

    def answer(self) -> Posted:
        return self.posted.get(timeout=PATIENCE_SECONDS)


class BrokenProtocol(Exception):
    """What the runtime did that it may not do."""


class _Lost(Exception):
    """The connection is to be closed."""


class RuntimeApi:
    """A context: it listens on `address` while entered."""

    def __init__(self, concurrency: int = 1) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.violations: list[str] = []
        self.start_errors: Queue[tuple[str, bytes]] = Queue()
        self.restoring = threading.Event()
        """Set once the runtime is ready to be copied."""
        self.restored = threading.Event()
        self.connections = 0
        self.most_at_once = 0
        self._concurrency = concurrency
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
        """Whether the runtime waits for an invocation."""
        return bool(self._asking)

    def send(self, event: object, seconds: float = FUNCTION_SECONDS) -> Invoked:
        """Hands an invocation to whoever asks next."""
        self._count += 1
        invoked = Invoked(f"request-{self._count}", json.dumps(event).encode(), seconds)
        self._events.put(invoked)
        return invoked

    def cut(self, where: Cut) -> None:
        """Loses one connection at the next such place."""
        self._cuts.put(where)

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
        except (OSError, _Lost):
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
            return self._get(connection, path)
        demand(method == "POST", f"{method} {path}")
        return self._post(connection, stream, path, headers)

    def _get(self, connection: socket.socket, path: str) -> bool:
        if path == f"{RUNTIME}/restore/next":
            self.restoring.set()
            self.restored.wait(PATIENCE_SECONDS)
            connection.sendall(reply(200, b"{}"))
            return True
        demand(path == f"{RUNTIME}/invocation/next", f"GET {path}")
        self._lose_if(Cut.BEFORE_NEXT)
        invoked = self._next_event(connection)
        content = reply(200, invoked.event, self._invocation_headers(invoked))
        if self._cuts_at(Cut.HEAD_OF_NEXT):
            connection.sendall(content[:40])
            raise _Lost
        if self._cuts_at(Cut.BODY_OF_NEXT):
            connection.sendall(content[: -len(invoked.event) // 2])
            raise _Lost
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
            raise _Lost
        finally:
            with self._lock:
                self._asking.discard(connection)

    def _invocation_headers(self, invoked: Invoked) -> dict[str, str]:
        return {
            "Lambda-Runtime-Aws-Request-Id": invoked.id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + invoked.seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:::function:kindling",
            "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
            "Lambda-Runtime-Invocation-Id": f"attempt-of-{invoked.id}",
        }

    def _post(
        self, connection: socket.socket, stream: IO[bytes], path: str, headers: dict[str, str]
    ) -> bool:
        if path == f"{RUNTIME}/init/error":
            body = stream.read(int(headers["content-length"]))
            self.start_errors.put((headers["lambda-runtime-function-error-type"], body))
            connection.sendall(reply(202, b'{"status":"OK"}'))
            return True
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
        posted = self._read_post(stream, what, headers, invoked)
        with self._lock:
            del self._open[name]
        if self._cuts_at(Cut.BEFORE_REPLY):
            invoked.posted.put(posted)
            raise _Lost
        return self._acknowledge(connection, stream, invoked, posted)

    def _read_post(
        self, stream: IO[bytes], what: str, headers: dict[str, str], invoked: Invoked
    ) -> Posted:
        if what == "error":
            demand("lambda-runtime-function-error-type" in headers, "an error without its type")
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
                raise _Lost
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
            raise _Lost
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
            raise _Lost


def demand(holds: bool, violation: str) -> None:
    if not holds:
        raise BrokenProtocol(violation)


def has_left(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def read_fields(stream: IO[bytes]) -> dict[str, str]:
    """Headers or trailers, to the empty line."""
    fields: dict[str, str] = {}
    while (line := stream.readline()) != b"\r\n":
        if not line:
            raise _Lost
        name, colon, value = line.decode().partition(":")
        demand(line.endswith(b"\r\n") and bool(colon), f"no header: {line!r}")
        demand(name.lower() not in fields, f"{name} twice")
        fields[name.lower()] = value.strip()
    return fields


def read_chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """The chunks of a body; what follows the last one, its trailers, is left to be read."""
    while True:
        line = stream.readline()
        if not line:
            raise _Lost
        demand(line.endswith(b"\r\n"), f"no size of a chunk: {line!r}")
        size = int(line, 16)
        if size == 0:
            return
        data = stream.read(size)
        demand(stream.read(2) == b"\r\n" or len(data) < size, "a chunk of another size")
        yield data


def discard(stream: IO[bytes], headers: dict[str, str]) -> None:
    if "content-length" in headers:
        stream.read(int(headers["content-length"]))
    else:
        for _ in read_chunks(stream):
            pass
        read_fields(stream)


def reply(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in (fields | (headers or {})).items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body
