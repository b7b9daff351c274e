"""A minimal HTTP/1.1 client on a socket (RFC 9112), for the Runtime API at 127.0.0.1 only.

http.client, with the email package that it imports, takes 13 ms of processor time to import; a
socket takes 2. There are no time limits: between two invocations Lambda may freeze the process for
hours.
"""

from __future__ import annotations

import contextlib
import socket
from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

CUT = "The connection was closed before the answer was complete."


class Reply(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Connection:
    """An open connection, for one request after the other. Every method may raise OSError."""

    def __init__(self, address: str) -> None:
        """Connects. `address` is a host and a port."""
        host, _, port = address.rpartition(":")
        self._address = address
        self._socket = socket.create_connection((host, int(port)))
        # Each chunk of a stream is a small packet, which must not wait for the one before it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")
        self.reusable = True
        """Whether the server keeps it open for another request."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Reply:
        """Sends a whole request and waits for the reply."""
        self.send(self._head(method, path, {**headers, "content-length": str(len(body))}) + body)
        return self.reply()

    def begin_chunked(self, path: str, headers: Mapping[str, str]) -> None:
        """Sends the head of a POST. Its body follows by `send`: chunks, then `last_chunk`."""
        chunked = {**headers, "transfer-encoding": "chunked", "connection": "close"}
        self.send(self._head("POST", path, chunked))

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._socket.sendall(data)

    def reply(self) -> Reply:
        """Waits for a reply and reads all of it."""
        version, _, status = _line(self._replies).partition(" ")
        headers = _read_fields(self._replies)
        closes = headers.get("connection", "").lower() == "close"
        self.reusable = version == "HTTP/1.1" and not closes
        return Reply(_number(status[:3], 10), headers, _read_body(self._replies, headers))

    def peer_spoke(self) -> bool:
        """Returns whether the server has sent something, or closed, before the request's end."""
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def shut_down(self) -> None:
        """Ends another thread's wait for a reply, with a ConnectionError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection; more than once does no harm."""
        self._replies.close()
        self._socket.close()

    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        return f"{method} {path} HTTP/1.1\r\nhost: {self._address}\r\n".encode() + _fields(headers)


def chunk(data: bytes) -> bytes:
    """Encodes a part of a chunked body. `data` must not be empty, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Mapping[str, str]) -> bytes:
    """Encodes the end of a chunked body, with its trailers."""
    return b"0\r\n" + _fields(trailers)


def _fields(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


def _line(stream: IO[bytes]) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError(CUT)
    return line.decode("latin-1").rstrip("\r\n")


def _read_fields(stream: IO[bytes]) -> dict[str, str]:
    headers = {}
    while line := _line(stream):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _read_body(stream: IO[bytes], headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _read_chunks(stream)
    return _exactly(stream, _number(headers.get("content-length", "0"), 10))


def _read_chunks(stream: IO[bytes]) -> bytes:
    body = bytearray()
    while size := _number(_line(stream).partition(";")[0], 16):
        body += _exactly(stream, size)
        _line(stream)
    _read_fields(stream)  # trailers
    return bytes(body)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError(CUT)
    return data


def _number(text: str, base: int) -> int:
    with contextlib.suppress(ValueError):
        if text.isalnum() and text.isascii():  # int() also takes signs and underscores
            return int(text, base)
    raise ConnectionError(f"What came is not HTTP: {text[:40]!r}.")
