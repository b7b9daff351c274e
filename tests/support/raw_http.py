"""HTTP by hand, for what a client library hides: the chunks of a body, and leaving early."""

from __future__ import annotations

import json
import socket
from typing import IO

import httpx

from tests.support.servers import PATIENCE_SECONDS, CloudRun


def connect(server: CloudRun) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), PATIENCE_SECONDS)


def post_bytes(path: str, body: object, *, content_length: int | None = None) -> bytes:
    """A whole request, unless `content_length` promises more than follows."""
    content = json.dumps(body).encode()
    length = len(content) if content_length is None else content_length
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n"
    return head.encode() + content


def read_head(stream: IO[bytes]) -> list[str]:
    """The status line and the headers."""
    lines = []
    while (line := stream.readline().strip()) != b"":
        lines.append(line.decode())
    return lines


def read_chunks(stream: IO[bytes]) -> list[bytes]:
    """A chunked body as the server cut it (RFC 9112, 7.1)."""
    chunks = []
    while size := int(stream.readline(), 16):
        chunks.append(stream.read(size))
        stream.readline()
    return chunks
