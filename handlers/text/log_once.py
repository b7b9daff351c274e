"""Warnings that a process writes once, about things of which clients can make up any number.

Called by grammar.py, tool_calls.py and the API's offered_tools.py.
"""

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
"""What was written about, by the message. What was taken out would be written anew: nothing is."""


def log_once(logger: logging.Logger, message: str, what: str) -> None:
    """Writes a warning, unless the same was written before or the message has all its lines.

    `message`: a constant of ours, with one %s in it for `what`, which may be the client's.
    """
    what = shortened(what)
    with _lock:
        written = _logged.setdefault(message, set())
        if what in written or len(written) >= MOST:
            return
        written.add(what)
    logger.warning(message, what)
