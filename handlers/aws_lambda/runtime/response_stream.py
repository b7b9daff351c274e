"""An answer that leaves in chunks, behind a prelude that has its status and its headers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
Called by api.py, which opens the connection, and by invocation.py.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from handlers.aws_lambda.runtime.http11 import Connection, chunk, last_chunk
from handlers.aws_lambda.runtime.protocol import AGENT, ERROR_BODY, ERROR_TYPE, demand_accepted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.aws_lambda.runtime.protocol import Fault, Invocation

# A function URL in RESPONSE_STREAM mode takes status and headers in front of the body, and eight
# NUL bytes between them.
HEADERS = {
    "content-type": "application/vnd.awslambda.http-integration-response",
    "lambda-runtime-function-response-mode": "streaming",
    "trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}
PRELUDE_END = bytes(8)


class Stream:
    """An answer on its way. Each method may raise OSError; `close` is the caller's in any case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def begin(
        cls, address: str, invocation: Invocation, status: int, headers: Mapping[str, str]
    ) -> Stream:
        """Over a connection of its own: its end, and nothing else, can be the stream's end."""
        stream = cls(Connection(address))
        prelude = msgspec.json.encode({"statusCode": status, "headers": dict(headers)})
        try:
            stream._connection.begin_chunked(
                invocation.path("response"), {**AGENT, **HEADERS, **invocation.labels}
            )
            stream.send(prelude + PRELUDE_END)
        except OSError:
            stream.close()
            raise
        return stream

    def look(self) -> None:
        """Raises OSError where the client or the connection is gone, Refused where Lambda spoke."""
        if self._connection.interrupted():
            demand_accepted(self._connection.reply())
            raise ConnectionError("The stream was taken for complete before its end.")

    def send(self, data: bytes) -> None:
        """The next part."""
        if data:
            self._connection.send(chunk(data))

    def end(self, fault: Fault | None) -> None:
        """The last part has been sent; `fault`: why nothing follows it. Raises Refused, Gone."""
        trailers = {} if fault is None else {ERROR_TYPE: fault.label, ERROR_BODY: _base64(fault)}
        self._connection.send(last_chunk(trailers))
        demand_accepted(self._connection.reply())

    def close(self) -> None:
        """What has been sent stays sent; without `end` the answer is cut."""
        self._connection.close()


def _base64(fault: Fault) -> str:
    return base64.b64encode(fault.body).decode()
