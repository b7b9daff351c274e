"""HTTP/1.1 read byte by byte, for the stand-in of the Runtime API: what is not right is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import IO


class BrokenProtocol(Exception):
    """The runtime did what it may not do."""


class Lost(Exception):
    """The connection is to be closed."""


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
            raise Lost
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
            raise Lost
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
