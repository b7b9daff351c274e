"""The deployed API over HTTP: one connection for each request, by the standard library alone.

Knows how to ask and how to listen; what an answer should be is known by checks.py.
"""

from __future__ import annotations

import http.client
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy.smoke.failure import Failure, Silence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deploy.smoke.credentials import Prove


@dataclass(frozen=True)
class Answer:
    """One that has arrived as a whole."""

    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        """Raises Failure when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Failure(f"got no JSON with status {self.status}: {self.excerpt}") from error

    @property
    def excerpt(self) -> str:
        """Its beginning, for a message."""
        return self.body[:200].decode(errors="replace").strip() or "an empty body"


@dataclass(frozen=True)
class Piece:
    """The bytes that one read of a stream brought."""

    seconds: float
    """Since the request was sent."""
    data: bytes


@dataclass(frozen=True)
class Endpoint:
    """The deployed API at `url`, which has no slash at its end."""

    url: str
    prove: Prove
    api_key: str
    timeout: float
    """Seconds without a byte."""

    @property
    def is_guarded(self) -> bool:
        """Returns whether there is a key or a signature to show."""
        return bool(self._headers("GET", "/", b""))

    def send(
        self, method: str, path: str, call: object = None, *, stranger: bool = False
    ) -> Answer:
        """The answer, whatever its status; `stranger` shows neither key nor signature."""
        with self._asked(method, path, call, stranger) as response:
            content_type = response.headers.get("content-type", "")
            return Answer(response.status, content_type, response.read())

    def stream(self, path: str, call: object) -> Iterator[Piece]:
        """The answer as it arrives. Raises Failure when it is no stream of events."""
        started = time.perf_counter()
        with self._asked("POST", path, call, stranger=False) as response:
            content_type = response.headers.get("content-type", "")
            if response.status != 200 or not content_type.startswith("text/event-stream"):
                answer = Answer(response.status, content_type, response.read())
                raise Failure(
                    f"asked for a stream, got {answer.status} {content_type}: {answer.excerpt}"
                )
            while data := response.read1():
                yield Piece(time.perf_counter() - started, data)

    @contextmanager
    def _asked(
        self, method: str, path: str, call: object, stranger: bool
    ) -> Iterator[http.client.HTTPResponse]:
        body = b"" if call is None else json.dumps(call).encode()
        headers = {"content-type": "application/json"}
        headers |= {} if stranger else self._headers(method, path, body)
        connection = self._connection()
        try:
            connection.request(method, urlsplit(self.url + path).path, body, headers)
            yield connection.getresponse()
        except TimeoutError as error:
            raise Silence(f"nothing came for {self.timeout:g} s from {self.url}{path}.") from error
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"the connection to {self.url}{path} failed: {error!r}.") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Failure(f"{self.url} is no URL of http:// or https://.")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=self.timeout)

    def _headers(self, method: str, path: str, body: bytes) -> Mapping[str, str]:
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {**key, **self.prove(method, self.url + path, body)}
