"""Lambda's side of the Runtime API: as much of it as a first invocation needs.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. It stands in for AWS's emulator,
whose own start and HTTP hop would be in the time measured. The event waits before the process
starts, as it does for a cold start on Lambda. Knows nothing of models; called by bench/cold.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any

REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
FUNCTION_SECONDS = 900
LOOK_SECONDS = 0.05


class RuntimeApi:
    """A context: it listens on `address` while entered."""

    def __init__(self) -> None:
        self._events: SimpleQueue[bytes] = SimpleQueue()
        self._posts: SimpleQueue[tuple[str, bytes, float]] = SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_port}"
        """What AWS_LAMBDA_RUNTIME_API must say."""

    def __enter__(self) -> RuntimeApi:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def send(self, event: object) -> None:
        """The next invocation."""
        self._events.put(json.dumps(event).encode())

    def answer(self, is_alive: Callable[[], bool], seconds: float) -> tuple[Any, float]:
        """The posted response, and when it had arrived by time.perf_counter.

        Raises RuntimeError when the function reports an error, dies or stays silent.
        """
        limit = time.perf_counter() + seconds
        while time.perf_counter() < limit and is_alive():
            try:
                path, body, arrived = self._posts.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            if not path.endswith("/response"):
                raise RuntimeError(f"The function reported to {path}: {body[:500]!r}")
            return json.loads(body), arrived
        raise RuntimeError("The function ended, or posted no response in time.")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        events, posts = self._events, self._posts

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """…/runtime/invocation/next: waits for an event."""
                self._reply(200, events.get())

            def do_POST(self) -> None:
                """…/response, …/error or …/init/error."""
                body = self.rfile.read(int(self.headers["content-length"]))
                posts.put((self.path, body, time.perf_counter()))
                self._reply(202, b'{"status":"OK"}')

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("Lambda-Runtime-Aws-Request-Id", REQUEST_ID)
                deadline = int((time.time() + FUNCTION_SECONDS) * 1e3)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:::kindling")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Silence: the benchmark's own progress is on standard error."""

        return Handler
