"""One line of JSON for each record, on standard output.

The keys serve both clouds: `timestamp` and `level` are those by which Lambda's JSON log format
filters, `severity` and `message` those that Cloud Logging reads. Of a request only its envelope
is written, never its prompt or answer. Set up by startup.py; lines for requests come from the
adapters, all others through `logging.getLogger(__name__)` in any module under handlers/.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.api.http import REQUEST_ID_HEADER
from handlers.errors import shortened

if TYPE_CHECKING:
    from handlers.api.http import TokenUsage

LOGGER = logging.getLogger("handlers")

COLD = "x-kindling-cold"
"""The header of an answer that waited for its process to start, or to be restored."""

# nginx's status for a client that left before its answer; only the log ever sees it.
CLIENT_CLOSED_REQUEST = 499

# Of a message and of a traceback, which may repeat what a client has sent. Cloud Logging takes
# entries of 256 KB: https://docs.cloud.google.com/logging/quotas
MESSAGE_CHARACTERS = 2048
TRACEBACK_CHARACTERS = 16_384

_begun = itertools.count()


def first_is_warm() -> None:
    """The process was there before anybody waited for it: no request of it is cold."""
    next(_begun)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; the mapping in `extra={"fields": ...}` joins its keys."""

    def format(self, record: logging.LogRecord) -> str:
        """A single line, whatever the message holds."""
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


def set_up(level: str) -> None:
    """Writes what the modules under handlers/ log from `level` up.

    The lines bypass the root logger: awslambdaric gives that one a format of its own.
    """
    stream = logging.StreamHandler(sys.stdout)
    stream.setFormatter(JsonFormatter())
    LOGGER.handlers = [stream]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def enable_loggers() -> None:
    """Lets the modules under handlers/ log again, after something has disabled their loggers.

    logging.config.dictConfig does so to all loggers that it does not name.
    """
    for name, logger in list(LOGGER.manager.loggerDict.items()):
        if name.partition(".")[0] == LOGGER.name and isinstance(logger, logging.Logger):
            logger.disabled = False


class Access(msgspec.Struct, frozen=True):
    """A request on its way."""

    id: str
    method: str
    path: str
    platform: Mapping[str, str] = {}
    """What the platform calls it, by the keys of the line: Lambda's own log has the same."""
    started: float = msgspec.field(default_factory=time.monotonic)
    cold: bool = msgspec.field(default_factory=lambda: next(_begun) == 0)
    """Whether it is the process's first."""

    @classmethod
    def of_a_probe(cls, identity: str, method: str, path: str) -> Access:
        """Of the platform, before it sends anybody: the first request after it is the cold one."""
        return cls(identity, method, path, cold=False)

    @property
    def headers(self) -> dict[str, str]:
        """What its answer carries: its name, and whether it was cold."""
        return (
            {REQUEST_ID_HEADER: self.id, COLD: "true"}
            if self.cold
            else {REQUEST_ID_HEADER: self.id}
        )

    def done(self, status: int, usage: TokenUsage | None = None) -> None:
        """Writes the request's line, once its answer is complete. `usage`: the answer's own."""
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
        LOGGER.info("%s %d", fields["method"], status, extra={"fields": fields})


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
