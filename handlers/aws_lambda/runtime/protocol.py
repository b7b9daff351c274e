"""What both sides of the Runtime API exchange, and how it can end.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html and, for streams and concurrency,
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html. Knows no event and no answer,
and no connection. Called by api.py and stream.py; others take the types and the errors.
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


class Gone(Exception):
    """There will be no further invocation: the process may end."""


class Stopped(Exception):
    """The process has been told to end, and asks no more."""


class NotTaken(Exception):
    """An answer did not arrive: Lambda refused it, or the connection died."""


class Refused(NotTaken):
    """Lambda says why."""


class Fault(msgspec.Struct, frozen=True):
    """An error as Lambda shows it."""

    type: str
    """As Step Functions' Retry and Catch name it."""
    message: str
    category: Literal["Function", "Runtime"] = "Function"

    @property
    def label(self) -> str:
        """For Lambda's own log and metrics, which keep no type of another form.

        "We recommend a format of <category.reason>":
        https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html#runtimes-api-invokeerror
        """
        return f"{self.category}.{self.type}"

    @property
    def shown(self) -> str:
        """Of the message what UTF-8 can carry, and no more than fits a line."""
        return self.message[:MESSAGE_CHARACTERS].encode("utf-8", "replace").decode()

    @property
    def body(self) -> bytes:
        """Lambda's JSON for it."""
        error = {"errorMessage": self.shown, "errorType": self.type, "stackTrace": []}
        return msgspec.json.encode(error)


class Invocation(msgspec.Struct, frozen=True):
    """What is to be answered."""

    id: str
    event: bytes
    deadline_ms: float
    """Unix time in milliseconds at which Lambda kills the process; infinite if it did not say."""
    trace_id: str | None
    """X-Ray's, as its header has it."""
    labels: Mapping[str, str]
    """Headers that come back with the answer."""

    @property
    def seconds(self) -> float:
        """What is left until the deadline."""
        return self.deadline_ms / 1000 - time.time()

    def path(self, what: str) -> str:
        """Where its `response` or its `error` goes."""
        return f"{RUNTIME}/invocation/{self.id}/{what}"


def demand_accepted(reply: Reply) -> None:
    """Lambda takes no second answer, and none that comes too late or is too large."""
    if reply.status == 202:
        return
    said = f"Lambda answered {reply.status}: {reply.body[:200]!r}"
    if reply.status == 500:  # "Non-recoverable state. Runtime should exit promptly."
        raise Gone(said)
    raise Refused(said)


def read_invocation(reply: Reply) -> Invocation:
    """Raises OSError for an answer that is no invocation. Never shows an event."""
    if reply.status != 200:
        raise ConnectionError(f"{NEXT} answered {reply.status}: {reply.body[:200]!r}")
    if ID not in reply.headers:
        raise ConnectionError(f"{NEXT} answered 200 without {ID}.")
    return Invocation(
        id=reply.headers[ID],
        event=reply.body,
        deadline_ms=_deadline(reply.headers),
        trace_id=reply.headers.get(TRACE) or None,
        labels={name: reply.headers[name] for name in (ATTEMPT,) if name in reply.headers},
    )


def _deadline(headers: Mapping[str, str]) -> float:
    try:
        return int(headers[DEADLINE])
    except (KeyError, ValueError):
        log.warning("An invocation came without a usable %s.", DEADLINE)
        return math.inf


def read_restored(reply: Reply) -> None:
    """A refusal is Lambda's last word; only a connection that dies is asked for again."""
    if reply.status != 200:
        raise Gone(f"{RESTORE} answered {reply.status}: {reply.body[:200]!r}")
