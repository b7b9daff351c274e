"""Invocations as the stand-in for the Runtime API sees them, and where it may lose one."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field
from queue import Queue

from tests.support.servers import PATIENCE_SECONDS


class Cut(enum.Enum):
    """The places where a connection can be lost."""

    BEFORE_RESTORE = "asked for the restore"
    REPLY_OF_RESTORE = "during the news of the restore"
    BEFORE_NEXT = "asked for an invocation"
    HEAD_OF_NEXT = "during the head of an invocation"
    BODY_OF_NEXT = "during the event"
    BEFORE_BODY = "before the answer's body has been read"
    BEFORE_REPLY = "the answer has been read and is not acknowledged"
    BODY_OF_REPLY = "during the acknowledgement"
    IDLE = "after the acknowledgement"


RESTORE_CUTS = (Cut.BEFORE_RESTORE, Cut.REPLY_OF_RESTORE)
SERVING_CUTS = tuple(where for where in Cut if where not in RESTORE_CUTS)


@dataclass(frozen=True)
class Posted:
    """The whole answer to an invocation."""

    what: str
    """`response` or `error`."""
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str]

    @property
    def streamed(self) -> bool:
        return "transfer-encoding" in self.headers


@dataclass
class Invoked:
    """An invocation on its way, from the client's side."""

    id: str
    event: bytes
    seconds: float | None
    """What its function has; None hides it."""
    chunks: Queue[bytes] = field(default_factory=Queue)
    posted: Queue[Posted] = field(default_factory=Queue)
    stop_after: int | None = None
    """Chunks after which nobody reads on."""
    stopped: threading.Event = field(default_factory=threading.Event)
    refused_with: int | None = None
    """The status for its answer, in place of 202; of a stream after its first event."""

    @property
    def trace_id(self) -> str:
        return f"Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0;Lineage={self.id}"

    @property
    def through_url(self) -> bool:
        """Returns whether a function URL's client waits for it."""
        return b".lambda-url." in self.event

    @property
    def through_rest_api(self) -> bool:
        """Returns whether a REST API's client waits; an HTTP API's event names its version."""
        return b'"resource"' in self.event and b'"version"' not in self.event

    def chunk(self) -> bytes:
        """The next chunk, while the rest is still being made."""
        return self.chunks.get(timeout=PATIENCE_SECONDS)

    def answer(self) -> Posted:
        return self.posted.get(timeout=PATIENCE_SECONDS)
