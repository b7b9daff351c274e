"""Object stores that a test can break: S3 is moto's, Cloud Storage an emulator's, HTTP our own.

A process of ours never talks to moto or to the emulator but through Proxy, which counts the
requests and, where a test says so, refuses, cuts, delays or changes what comes back.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

BUCKET, PREFIX = "models", "smollm/int4"

# moto takes anybody's signature, but wants one.
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"}


@dataclass(frozen=True)
class Answer:
    """The answer of a store to a GET."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Fault:
    """A fault in the next `times` requests for an object whose name is `name`."""

    name: str
    times: int = 1
    skip: int = 0
    """Requests for it that go well before."""
    status: int | None = None
    cut: int | None = None
    """Bytes of the body after which the connection breaks."""
    seconds: float = 0.0
    before: Callable[[], None] | None = None


@dataclass
class Proxy:
    """A server in front of a store."""

    get: Callable[[str, Mapping[str, str]], Answer]
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Name and range of each."""
    faults: list[Fault] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fetched(self, name: str) -> int:
        """The bytes that were asked for of one object."""
        spans = (re.findall(r"\d+", span) for asked, span in self.requests if asked == name)
        return sum(int(stop) - int(start) + 1 for start, stop in spans)

    def fault_of(self, name: str) -> Fault | None:
        for fault in self.faults:
            if fault.name == name and fault.times > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None


@dataclass(frozen=True)
class Place:
    """A place where a test puts a model, and how a process reaches it."""

    uri: str
    environ: Mapping[str, str]
    proxy: Proxy
    put: Callable[[str, bytes], None]

    def upload(self, directory: Path) -> None:
        for path in directory.iterdir():
            self.put(path.name, path.read_bytes())


@contextmanager
def serving(proxy: Proxy) -> Iterator[None]:
    handler = type("Handler", (_Handler,), {"proxy": proxy, "lock": threading.Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        proxy.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    lock: threading.Lock

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path).rpartition("/")[2]
        with self.lock:
            self.proxy.requests.append((name, self.headers.get("range", "")))
            fault = self.proxy.fault_of(name) or Fault(name)
        if fault.before:
            fault.before()
        time.sleep(fault.seconds)
        answer = self.proxy.get(self.path, dict(self.headers))
        if fault.status is not None:
            answer = Answer(fault.status, {}, b"")
        try:
            self._send(answer, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client was killed

    def _send(self, answer: Answer, fault: Fault) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if fault.cut is None else answer.body[: fault.cut])
        self.close_connection = fault.cut is not None


@contextmanager
def http_place() -> Iterator[Place]:
    """A plain server of files."""
    objects: dict[str, bytes] = {}
    proxy = Proxy(lambda path, headers: _answer(objects.get(path), headers))
    with serving(proxy):

        def put(name: str, content: bytes) -> None:
            objects[f"/{PREFIX}/{name}"] = content

        yield Place(f"{proxy.url}/{PREFIX}", {}, proxy, put)


@contextmanager
def s3_place() -> Iterator[Place]:
    """Starts moto's server and makes a bucket in it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel("ERROR")
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    _call(port, "POST", "/moto-api/reset")  # its state is the process's
    _call(port, "PUT", f"/{BUCKET}")
    proxy = Proxy(lambda path, headers: _forward(port, path, headers))
    try:
        with serving(proxy):
            environ = {
                "AWS_ENDPOINT_URL": proxy.url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            }
            yield Place(f"s3://{BUCKET}/{PREFIX}", environ, proxy, _putting(port))
    finally:
        moto.stop()


@contextmanager
def gcs_place() -> Iterator[Place]:
    """The emulator, with what it leaves out of Cloud Storage's XML API: ETag and its conditions.

    https://cloud.google.com/storage/docs/xml-api/get-object-download
    """
    from gcp_storage_emulator.server import create_server

    emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    emulator.start()
    port = emulator._api._httpd.server_port

    def get(path: str, headers: Mapping[str, str]) -> Answer:
        whole = _call(port, "GET", path)
        return _answer(whole.body if whole.status == 200 else None, headers)

    proxy = Proxy(get)
    try:
        with serving(proxy):
            environ = {
                "GOOGLE_BASE_URL": proxy.url,
                "GOOGLE_ALLOW_HTTP": "true",
                "GOOGLE_SKIP_SIGNATURE": "true",
            }
            yield Place(f"gs://{BUCKET}/{PREFIX}", environ, proxy, _putting(port))
    finally:
        emulator.stop()


PLACES = {"s3": s3_place, "gs": gcs_place, "http": http_place}


def _answer(content: bytes | None, headers: Mapping[str, str]) -> Answer:
    """RFC 9110's, to ranges and to If-Match."""
    if content is None:
        return Answer(404, {}, b"")
    etag = f'"{hashlib.md5(content).hexdigest()}"'
    if headers.get("if-match", etag) != etag:
        return Answer(412, {}, b"")
    described = {"ETag": etag, "Last-Modified": formatdate(usegmt=True)}
    span = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
    if span is None:
        return Answer(200, described, content)
    start, stop = int(span[1]), min(int(span[2]) + 1, len(content))
    described["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Answer(206, described, content[start:stop])


def _putting(port: int) -> Callable[[str, bytes], None]:
    def put(name: str, content: bytes) -> None:
        path = f"/{BUCKET}/{quote(f'{PREFIX}/{name}')}"
        assert _call(port, "PUT", path, content, SIGNED).status == 200

    return put


def _forward(port: int, path: str, headers: Mapping[str, str]) -> Answer:
    kept = {key: value for key, value in headers.items() if key.lower() != "host"}
    answer = _call(port, "GET", path, headers=kept)
    names = ("etag", "last-modified", "content-range", "content-type")
    found = {name: value for name in names if (value := answer.headers.get(name))}
    return Answer(answer.status, found, answer.body)


def _call(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
) -> Answer:
    client = http.client.HTTPConnection("127.0.0.1", port)
    try:
        client.request(method, path, body, dict(headers))
        answer = client.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())
    finally:
        client.close()
