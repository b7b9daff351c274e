"""Writes the log: one line of JSON for each record, on standard output.

The keys serve both clouds: `timestamp` and `level` are those by which Lambda's JSON log format
filters, `severity` and `message` those that Cloud Logging reads. Of a request only its envelope
is written, never its prompt or answer. The adapters log it with a RequestLog; every other line
comes from `logging.getLogger(__name__)` in any module under handlers/.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from handlers.errors import shortened

LOGGER = logging.getLogger("handlers")

# nginx's status for a client that left before its answer; only the log ever sees it.
CLIENT_CLOSED_REQUEST = 499

# How much is kept of a message and of a traceback, which may repeat what a client has sent. Cloud
# Logging takes entries of 256 KB: https://docs.cloud.google.com/logging/quotas
MESSAGE_CHARACTERS = 2048
TRACEBACK_CHARACTERS = 16_384

# Lines that one process writes for each message of log_once.
MOST_LINES = 100

_logged: dict[str, set[str]] = {}
"""What log_once wrote, by message. Nothing is taken out, or it would be logged again."""
_logged_lock = threading.Lock()
_requests = itertools.count()


def mark_warm() -> None:
    """Marks the process as started in advance, so its first request is not logged as cold."""
    next(_requests)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object, with the keys of `extra={"fields": ...}` added."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns a single line, whatever the message holds."""
        line = {
            "timestamp": _rfc3339(record.created),
            "level": record.levelname,
            "severity": record.levelname,
            "message": shortened(record.getMessage(), MESSAGE_CHARACTERS),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            line["exception"] = shortened(traceback, TRACEBACK_CHARACTERS)
        return json.dumps(line)


def configure(level: str) -> None:
    """Makes the modules under handlers/ log from `level` up.

    The lines bypass the root logger: awslambdaric gives that one a format of its own.
    """
    stream = logging.StreamHandler(sys.stdout)
    stream.setFormatter(JsonFormatter())
    LOGGER.handlers = [stream]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def enable_loggers() -> None:
    """Enables the loggers under handlers/ again.

    logging.config.dictConfig disables all loggers that it does not name.
    """
    for name, logger in list(LOGGER.manager.loggerDict.items()):
        if name.partition(".")[0] == LOGGER.name and isinstance(logger, logging.Logger):
            logger.disabled = False


class TokenCounts(Protocol):
    """The tokens that an answer took, as far as they are logged."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def drafted_tokens(self) -> int: ...
    @property
    def accepted_tokens(self) -> int: ...


class RequestLog(msgspec.Struct, frozen=True):
    """One request's line of the log, written when its answer is complete."""

    id: str
    method: str
    path: str
    platform: Mapping[str, str] = {}
    """What the platform's own log calls the request, added to the line under the same keys."""
    started: float = msgspec.field(default_factory=time.monotonic)
    cold: bool = msgspec.field(default_factory=lambda: next(_requests) == 0)
    """Whether it is the first request of the process."""

    @classmethod
    def of_probe(cls, identity: str, method: str, path: str) -> RequestLog:
        """Starts the line of a platform's health probe, which does not count as first request."""
        return cls(identity, method, path, cold=False)

    def log_completed(self, status: int, usage: TokenCounts | None = None) -> None:
        """Writes the line. `usage` is None for an answer that took no tokens."""
        fields: dict[str, Any] = {
            "id": self.id,
            "method": shortened(self.method),
            "path": shortened(self.path),
            "status": status,
            "ms": round((time.monotonic() - self.started) * 1000, 1),
            "cold": self.cold,
            **self.platform,
        }
        if usage is not None:
            fields["prompt_tokens"] = usage.prompt_tokens
            fields["completion_tokens"] = usage.completion_tokens
            if usage.drafted_tokens:
                fields["drafted_tokens"] = usage.drafted_tokens
                fields["accepted_tokens"] = usage.accepted_tokens
        LOGGER.info("%s %d", fields["method"], status, extra={"fields": fields})


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def log_once(logger: logging.Logger, message: str, what: str) -> None:
    """Logs a warning, unless the same was logged before or the message has had all its lines.

    For things of which clients can make up any number. `message`: a constant of ours, with one %s
    in it for `what`, which may be the client's.
    """
    what = shortened(what)
    with _logged_lock:
        written = _logged.setdefault(message, set())
        if what in written or len(written) >= MOST_LINES:
            return
        written.add(what)
    logger.warning(message, what)
