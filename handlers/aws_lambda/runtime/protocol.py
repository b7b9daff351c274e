"""The messages of Lambda's Runtime API, and the errors that talking to it can raise.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html and, for streams and concurrency,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.aws_lambda.runtime.http11 import Reply

log = logging.getLogger(__name__)

RUNTIME = "/2018-06-01/runtime"
NEXT = f"{RUNTIME}/invocation/next"
RESTORE = f"{RUNTIME}/restore/next"
AGENT = {"user-agent": "kindling"}
ERROR_TYPE = "lambda-runtime-function-error-type"
ERROR_BODY = "lambda-runtime-function-error-body"
ATTEMPT = "lambda-runtime-invocation-id"
ID = "lambda-runtime-aws-request-id"
DEADLINE = "lambda-runtime-deadline-ms"
TRACE = "lambda-runtime-trace-id"

# An error repeats what is wrong with an event, and an event may have 6 MB.
MESSAGE_CHARACTERS = 1000


class RuntimeApiUnavailable(Exception):
    """The Runtime API hands out no further invocation: the process should end."""


class ShuttingDown(Exception):
    """The process has been told to end, and asks for no further invocation."""


class ResponseNotDelivered(Exception):
    """A response did not arrive: Lambda rejected it, or the connection died."""


class ResponseRejected(ResponseNotDelivered):
    """Lambda rejected a response; the message has its reason."""


class ErrorReport(msgspec.Struct, frozen=True):
    """An error as Lambda shows it, of an invocation or of the start."""

    type: str
    """The name that Step Functions' Retry and Catch match."""
    message: str
    category: Literal["Function", "Runtime"] = "Function"

    @property
    def label(self) -> str:
        """The type for Lambda's own log and metrics, which keep only types of this form.

        "We recommend a format of <category.reason>":
        https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-invokeerror
        """
        return f"{self.category}.{self.type}"

    @property
    def shown(self) -> str:
        """The message, cut to what fits a line and with ? for what UTF-8 cannot carry."""
        return self.message[:MESSAGE_CHARACTERS].encode("utf-8", "replace").decode()

    @property
    def body(self) -> bytes:
        """The JSON that Lambda expects."""
        error = {"errorMessage": self.shown, "errorType": self.type, "stackTrace": []}
        return msgspec.json.encode(error)


class InvocationRequest(msgspec.Struct, frozen=True):
    """An invocation as the Runtime API hands it out."""

    id: str
    event: bytes
    deadline_ms: float
    """Unix time in milliseconds at which Lambda kills the process; infinite if it did not say."""
    trace_id: str | None
    """X-Ray's, as its header has it."""
    echoed_headers: Mapping[str, str]
    """Headers that must come back with the response."""

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline_ms / 1000 - time.time()

    def path(self, kind: Literal["response", "error"]) -> str:
        """Returns the path to which its response, or an error, is posted."""
        return f"{RUNTIME}/invocation/{self.id}/{kind}"


def raise_for_status(reply: Reply) -> None:
    """Raises unless Lambda has accepted what was posted.

    It accepts no second response, and none that comes too late or is too large. Raises
    ResponseRejected, or RuntimeApiUnavailable for status 500.
    """
    if reply.status == 202:
        return
    reason = f"Lambda answered {reply.status}: {reply.body[:200]!r}"
    if reply.status == 500:  # "Non-recoverable state. Runtime should exit promptly."
        raise RuntimeApiUnavailable(reason)
    raise ResponseRejected(reason)


def read_invocation(reply: Reply) -> InvocationRequest:
    """Parses the reply to NEXT. Raises OSError, which never shows an event, if it is none."""
    if reply.status != 200:
        raise ConnectionError(f"{NEXT} answered {reply.status}: {reply.body[:200]!r}")
    if ID not in reply.headers:
        raise ConnectionError(f"{NEXT} answered 200 without {ID}.")
    return InvocationRequest(
        id=reply.headers[ID],
        event=reply.body,
        deadline_ms=_deadline(reply.headers),
        trace_id=reply.headers.get(TRACE) or None,
        echoed_headers={name: reply.headers[name] for name in (ATTEMPT,) if name in reply.headers},
    )


def _deadline(headers: Mapping[str, str]) -> float:
    try:
        return int(headers[DEADLINE])
    except (KeyError, ValueError):
        log.warning("An invocation came without a usable %s.", DEADLINE)
        return math.inf


def read_restored(reply: Reply) -> None:
    """Checks the reply to RESTORE. A rejection is final, so it raises RuntimeApiUnavailable."""
    if reply.status != 200:
        raise RuntimeApiUnavailable(f"{RESTORE} answered {reply.status}: {reply.body[:200]!r}")
