"""A tiny HTTP server on this machine whose answers a test writes: right ones, and broken ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.aws_events import HttpCall
from tests.support.servers import HttpAnswer

Respond = Callable[[HttpCall], HttpAnswer]


@contextmanager
def http_server(respond: Respond) -> Iterator[str]:
    """Its URL. An answer without a content-length ends, whole or not, with the connection."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = HttpCall(self.command, self.path, self.rfile.read(length), headers)
            answer = respond(call)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_POST = do_HEAD = do_OPTIONS = answer  # noqa: N815  the library's names

        def log_message(self, format: str, *_: object) -> None:
            """Keeps the server from logging."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
