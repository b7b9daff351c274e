"""A registry on this machine, as far as `docker login` and `docker push` talk to one.

The protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md. What is pushed
is checked by its digest and kept in memory; nothing can be pulled.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "AWS", "secret"
GRANTED = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class Registry:
    """A registry's store of what was pushed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.uploads: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        """Name and tag, with a colon between -> manifest."""

    def digest(self, name_and_tag: str) -> str | None:
        manifest = self.manifests.get(name_and_tag)
        return None if manifest is None else digest_of(manifest)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def registry() -> Iterator[Registry]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Registry(f"127.0.0.1:{server.server_address[1]}")
        Handler.registry = made
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """One connection of Docker's."""

    registry: Registry
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.is_granted():
            self.answer(200)

    def do_HEAD(self) -> None:
        if self.is_granted():
            content = self.registry.blobs.get(self.path.rpartition("/")[2])
            length = {} if content is None else {"content-length": str(len(content))}
            self.answer(404 if content is None else 200, **length)

    def do_POST(self) -> None:
        if self.is_granted():
            upload = str(uuid.uuid4())
            self.registry.uploads[upload] = b""
            self.answer(202, location=f"{urlsplit(self.path).path}{upload}")

    def do_PATCH(self) -> None:
        if self.is_granted():
            upload = self.path.rpartition("/")[2]
            self.registry.uploads[upload] += self.content()
            last = len(self.registry.uploads[upload]) - 1
            self.answer(202, location=self.path, range=f"0-{last}")

    def do_PUT(self) -> None:
        if not self.is_granted():
            return
        parts = urlsplit(self.path)
        before, _, last = parts.path.rpartition("/")
        content = self.content()
        if before.endswith("/manifests"):
            name = before.removeprefix("/v2/").removesuffix("/manifests")
            self.registry.manifests[f"{name}:{last}"] = content
        else:
            content = self.registry.uploads.pop(last) + content
            (claimed,) = parse_qs(parts.query)["digest"]
            if claimed != digest_of(content):
                self.answer(400)
                return
            self.registry.blobs[claimed] = content
        self.answer(201, **{"docker-content-digest": digest_of(content)})

    def is_granted(self) -> bool:
        if self.headers.get("authorization") == GRANTED:
            return True
        self.content()
        self.answer(401, **{"www-authenticate": 'Basic realm="registry"'})
        return False

    def content(self) -> bytes:
        """Docker sends what it is still compressing in chunks."""
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = b""
        while size := int(self.rfile.readline(), 16):
            parts += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return parts

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"content-length": "0"} | headers).items():
            self.send_header(name, value)
        self.send_header("docker-distribution-api-version", "registry/2.0")
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        """Keeps the server from logging."""
