"""The Runtime API: where invocations come from and where answers go.

Knows no event and no answer. One object serves one thread. Called by invocation.py, pollers.py
and __main__.py.
"""

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
    Gone,
    NotTaken,
    Stopped,
    demand_accepted,
    read_invocation,
    read_restored,
)
from handlers.aws_lambda.runtime.response_stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from handlers.aws_lambda.runtime.protocol import Fault, Invocation

T = TypeVar("T")

log = logging.getLogger(__name__)

JSON = {"content-type": "application/json"}

# Asked in vain once more after each of these pauses, the Runtime API is gone.
RETRY_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)
# A connection that lived this long was a good one: between two invocations it may die of age.
LIVED_SECONDS = 1.0


class RuntimeApi:
    """The calls, over a connection that is opened anew whenever it has been lost."""

    def __init__(self, address: str) -> None:
        """`address`: host and port, as AWS_LAMBDA_RUNTIME_API has them."""
        self._address = address
        self._idle: Connection | None = None
        self._asking: Connection | None = None
        self._stopped = False

    def next(self) -> Invocation:
        """Waits for an invocation, over as many connections as it takes. Raises Gone, Stopped."""
        return self._ask(NEXT, read_invocation)

    def wait_for_restore(self) -> None:
        """Returns in each copy of the process that comes from its snapshot. Raises Gone."""
        self._ask(RESTORE, read_restored)
        self.close()

    def stop(self) -> None:
        """Ends the wait for an invocation, now and from now on. From any thread or signal."""
        self._stopped = True
        if (asking := self._asking) is not None:
            asking.shut_down()

    def respond(self, invocation: Invocation, body: bytes) -> None:
        """Posts a whole answer. Raises NotTaken and Gone, as all that answers does."""
        path, headers = invocation.path("response"), {**JSON, **invocation.labels}
        _twice(lambda: demand_accepted(self._call("POST", path, headers, body)))

    def respond_as_stream(
        self, invocation: Invocation, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Posts a whole answer in the form of a stream."""

        def post() -> None:
            with contextlib.closing(self.stream(invocation, status, headers)) as stream:
                stream.send(body)
                stream.end(None)

        _twice(post)

    def stream(self, invocation: Invocation, status: int, headers: Mapping[str, str]) -> Stream:
        """Begins an answer that leaves in chunks. Raises OSError, as the stream itself does."""
        return Stream.begin(self._address, invocation, status, headers)

    def fail(self, invocation: Invocation, fault: Fault) -> None:
        """Posts an error in the answer's place. Raises Gone; that it is not taken is for the log.

        Lambda takes none where it has an answer.
        """
        self._post_error(invocation.path("error"), invocation.labels, fault)

    def fail_start(self, fault: Fault, stage: str) -> None:
        """Reports that the process cannot serve. `stage`: `init`, or `restore` once it is over."""
        with contextlib.suppress(Gone):
            self._post_error(f"{RUNTIME}/{stage}/error", {}, fault)

    def close(self) -> None:
        """Forgets the open connection."""
        if self._idle is not None:
            self._idle.close()
        self._idle = None

    def _ask(self, path: str, read: Callable[[Reply], T]) -> T:
        """Asks until `read` makes something of the reply: it raises OSError where it cannot."""
        pauses = iter(RETRY_SECONDS)
        while True:
            asked = time.monotonic()
            try:
                return read(self._wait(path))
            except OSError as error:
                if self._stopped:
                    raise Stopped from None
                log.warning("Nothing came of %s: %s", path, error)
                if time.monotonic() - asked > LIVED_SECONDS:
                    pauses = iter(RETRY_SECONDS)
                pause = next(pauses, None)
                if pause is None:
                    raise Gone(f"{self._address} hands out nothing: {error}") from error
                time.sleep(pause)

    def _wait(self, path: str) -> Reply:
        connection = self._asking = self._open()
        try:
            if self._stopped:  # looked at after `stop` can see the connection: one of both acts
                connection.close()
                raise Stopped
            return self._over(connection, "GET", path, {}, b"")
        finally:
            self._asking = None

    def _post_error(self, path: str, labels: Mapping[str, str], fault: Fault) -> None:
        headers = {**JSON, **labels, ERROR_TYPE: fault.label}
        try:
            _twice(lambda: demand_accepted(self._call("POST", path, headers, fault.body)))
        except NotTaken as error:
            log.warning("An error was not taken: %s", error)

    def _call(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        return self._over(self._open(), method, path, headers, body)

    def _open(self) -> Connection:
        connection, self._idle = self._idle or Connection(self._address), None
        return connection

    def _over(
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


def _twice(post: Callable[[], None]) -> None:
    """Posts again where the connection died, maybe before this. Raises NotTaken, Gone."""
    try:
        post()
    except OSError as error:
        log.warning("An answer is posted again: %s", error)
        try:
            post()
        except OSError as again:
            raise NotTaken(str(again)) from None
