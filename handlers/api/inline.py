"""Runs the API's coroutines without an event loop, where the engine is turned inline.

Called by the Lambda adapter, which so never imports asyncio.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never waits: inline, the engine computes where it would suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("The coroutine waits for an event loop, and there is none.")
