"""A response that leaves in chunks, after a prelude that has its status and its headers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import msgspec

from handlers.aws_lambda.runtime.http11 import Connection, chunk, last_chunk
from handlers.aws_lambda.runtime.protocol import AGENT, ERROR_BODY, ERROR_TYPE, raise_for_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.aws_lambda.runtime.protocol import ErrorReport, InvocationRequest

# A function URL in RESPONSE_STREAM mode takes status and headers in front of the body, and eight
# NUL bytes between them.
HEADERS = {
    "content-type": "application/vnd.awslambda.http-integration-response",
    "lambda-runtime-function-response-mode": "streaming",
    "trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
}
PRELUDE_END = bytes(8)


class ResponseStream:
    """A response on its way. Each method may raise OSError; the caller closes it in any case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def open(
        cls,
        address: str,
        invocation: InvocationRequest,
        status: int,
        headers: Mapping[str, str],
    ) -> ResponseStream:
        """Sends the prelude, over a connection of the stream's own: its end is the stream's end."""
        stream = cls(Connection(address))
        prelude = msgspec.json.encode({"statusCode": status, "headers": dict(headers)})
        try:
            stream._connection.begin_chunked(
                invocation.path("response"), {**AGENT, **HEADERS, **invocation.echoed_headers}
            )
            stream.send(prelude + PRELUDE_END)
        except OSError:
            stream.close()
            raise
        return stream

    def check_peer(self) -> None:
        """Raises OSError if the client or the connection has gone, ResponseRejected if rejected."""
        if self._connection.peer_spoke():
            raise_for_status(self._connection.reply())
            raise ConnectionError("The stream was taken for complete before its end.")

    def send(self, data: bytes) -> None:
        """Sends a part of the body."""
        if data:
            self._connection.send(chunk(data))

    def end(self, report: ErrorReport | None) -> None:
        """Ends the body; `report` says why it is incomplete, if it is.

        Raises ResponseRejected and RuntimeApiUnavailable.
        """
        trailers = {}
        if report is not None:
            error_body = base64.b64encode(report.body).decode()
            trailers = {ERROR_TYPE: report.label, ERROR_BODY: error_body}
        self._connection.send(last_chunk(trailers))
        raise_for_status(self._connection.reply())

    def close(self) -> None:
        """Closes the connection. Without `end` before it, the response is cut off."""
        self._connection.close()
