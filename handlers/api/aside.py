"""Work of many milliseconds that is not the engine's: compiling grammars, reading long prompts.

Knows nothing of what it runs. Called by the endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(threaded: bool, work: Callable[[], T]) -> T:
    """Runs it in a thread where an event loop serves others meanwhile, else at once.

    `threaded`: whether the engine's crank has a thread, and so its consumers a loop.
    """
    if not threaded:
        return work()
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(None, work)
