"""The client of Lambda's Runtime API: asks for invocations and posts their responses."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, TypeVar

from handlers.aws_lambda.runtime.http11 import Connection, Reply
from handlers.aws_lambda.runtime.protocol import (
    AGENT,
    ERROR_TYPE,
    NEXT,
    RESTORE,
    RUNTIME,
    ResponseNotDelivered,
    RuntimeApiUnavailable,
    ShuttingDown,
    raise_for_status,
    read_invocation,
    read_restored,
)
from handlers.aws_lambda.runtime.response_stream import ResponseStream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from handlers.aws_lambda.runtime.protocol import ErrorReport, InvocationRequest

T = TypeVar("T")

log = logging.getLogger(__name__)

JSON = {"content-type": "application/json"}

# The pauses between attempts; after the last one the Runtime API counts as unavailable.
RETRY_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)
# A connection that lived this long was a good one: between two invocations it may die of age.
LIVED_SECONDS = 1.0


class RuntimeClient:
    """Talks to the Runtime API for one thread, over a connection that it reopens when lost."""

    def __init__(self, address: str) -> None:
        """`address` is a host and a port, as AWS_LAMBDA_RUNTIME_API has them."""
        self._address = address
        self._idle: Connection | None = None
        self._waiting: Connection | None = None
        self._stopped = False

    def next_invocation(self) -> InvocationRequest:
        """Waits for an invocation, over as many connections as it takes.

        Raises RuntimeApiUnavailable and ShuttingDown.
        """
        return self._get(NEXT, read_invocation)

    def wait_for_restore(self) -> None:
        """Returns in each copy that is restored from the snapshot. Raises RuntimeApiUnavailable."""
        self._get(RESTORE, read_restored)
        self.close()

    def stop(self) -> None:
        """Ends the wait for an invocation, and every later one. Safe in any thread."""
        self._stopped = True
        if (waiting := self._waiting) is not None:
            waiting.shut_down()

    def respond(self, invocation: InvocationRequest, body: bytes) -> None:
        """Posts a whole response. Raises ResponseNotDelivered and RuntimeApiUnavailable."""
        path, headers = invocation.path("response"), {**JSON, **invocation.echoed_headers}
        _post_with_retry(lambda: raise_for_status(self._post(path, headers, body)))

    def respond_as_stream(
        self, invocation: InvocationRequest, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Posts a whole response in the form of a stream. Raises as `respond` does."""

        def post() -> None:
            with contextlib.closing(self.open_stream(invocation, status, headers)) as stream:
                stream.send(body)
                stream.end(None)

        _post_with_retry(post)

    def open_stream(
        self, invocation: InvocationRequest, status: int, headers: Mapping[str, str]
    ) -> ResponseStream:
        """Begins a response that leaves in chunks. Raises OSError, as the stream itself does."""
        return ResponseStream.open(self._address, invocation, status, headers)

    def report_error(self, invocation: InvocationRequest, report: ErrorReport) -> None:
        """Posts an error in place of the response. Raises RuntimeApiUnavailable.

        Lambda rejects it where it already has a response; that is logged.
        """
        self._post_error(invocation.path("error"), invocation.echoed_headers, report)

    def report_start_error(self, report: ErrorReport, stage: str) -> None:
        """Reports that the process cannot serve, at the stage `init` or, restored, `restore`."""
        with contextlib.suppress(RuntimeApiUnavailable):
            self._post_error(f"{RUNTIME}/{stage}/error", {}, report)

    def close(self) -> None:
        """Closes the idle connection."""
        if self._idle is not None:
            self._idle.close()
        self._idle = None

    def _get(self, path: str, read: Callable[[Reply], T]) -> T:
        """Asks until `read` returns something; it raises OSError for a reply that is unusable."""
        pauses = iter(RETRY_SECONDS)
        while True:
            asked = time.monotonic()
            try:
                return read(self._wait(path))
            except OSError as error:
                if self._stopped:
                    raise ShuttingDown from None
                log.warning("Nothing came of %s: %s", path, error)
                if time.monotonic() - asked > LIVED_SECONDS:
                    pauses = iter(RETRY_SECONDS)
                pause = next(pauses, None)
                if pause is None:
                    message = f"{self._address} hands out nothing: {error}"
                    raise RuntimeApiUnavailable(message) from error
                time.sleep(pause)

    def _wait(self, path: str) -> Reply:
        connection = self._waiting = self._open()
        try:
            # Checked after the connection can be seen: either `stop` ends its wait, or this does.
            if self._stopped:
                connection.close()
                raise ShuttingDown
            return self._send(connection, "GET", path, {}, b"")
        finally:
            self._waiting = None

    def _post_error(self, path: str, headers: Mapping[str, str], report: ErrorReport) -> None:
        headers = {**JSON, **headers, ERROR_TYPE: report.label}
        try:
            _post_with_retry(lambda: raise_for_status(self._post(path, headers, report.body)))
        except ResponseNotDelivered as error:
            log.warning("An error was not taken: %s", error)

    def _post(self, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        return self._send(self._open(), "POST", path, headers, body)

    def _open(self) -> Connection:
        connection, self._idle = self._idle or Connection(self._address), None
        return connection

    def _send(
        self,
        connection: Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        try:
            reply = connection.request(method, path, {**AGENT, **headers}, body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle = connection
        else:
            connection.close()
        return reply


def _post_with_retry(post: Callable[[], None]) -> None:
    """Posts, and once more where the connection died, maybe before it was used.

    Raises ResponseNotDelivered and RuntimeApiUnavailable.
    """
    try:
        post()
    except OSError as error:
        log.warning("An answer is posted again: %s", error)
        try:
            post()
        except OSError as again:
            raise ResponseNotDelivered(str(again)) from None
