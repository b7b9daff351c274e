"""Logs a warning once in a process, for things of which clients can make up any number."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from handlers.errors import shortened

if TYPE_CHECKING:
    import logging

MOST = 100
"""Lines that one process writes for each message."""

_lock = threading.Lock()
_logged: dict[str, set[str]] = {}
"""What was logged, by message. Nothing is taken out, or it would be logged again."""


def log_once(logger: logging.Logger, message: str, what: str) -> None:
    """Logs a warning, unless the same was logged before or the message has had all its lines.

    `message`: a constant of ours, with one %s in it for `what`, which may be the client's.
    """
    what = shortened(what)
    with _lock:
        written = _logged.setdefault(message, set())
        if what in written or len(written) >= MOST:
            return
        written.add(what)
    logger.warning(message, what)
