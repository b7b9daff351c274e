"""Bounded pools of threads for work of many milliseconds: tokenising and compiling grammars.

On the event loop it would hold up every stream and /healthz. Each kind of work has a pool of its
own, so a slow compile does not delay tokenising.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from handlers.errors import STOPPING, NotReady, Overloaded

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from handlers.engine.driver import EngineDriver

T = TypeVar("T")


class WorkerPool:
    """A few threads for one kind of work, with a bounded queue."""

    def __init__(
        self, name: str, engine: EngineDriver[Any, Any], *, threads: int, limit: int
    ) -> None:
        """`name`: of the work, for errors. `limit`: requests that wait or run at most."""
        self._name = name
        self._engine = engine
        self._threads = threads
        self._limit = limit
        self._pending = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Returns the result of `work`, run in a thread, or at once where there is no event loop.

        Raises Overloaded, NotReady and what `work` raises. The work of a request that is cancelled
        while it waits is not done.
        """
        if not self._engine.threaded:
            return self._run_unless_stopping(work)
        if self._pending >= self._limit:
            raise Overloaded(
                f"{self._pending} requests wait for {self._name}, which is all that may: try again "
                f"later."
            )
        import asyncio

        self._pending += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._run_unless_stopping, work)
        finally:
            self._pending -= 1

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self._threads, self._name)

    def _run_unless_stopping(self, work: Callable[[], T]) -> T:
        """Runs the work unless the server is stopping, which would refuse the request anyway.

        The interpreter waits for these threads before it ends.
        """
        if not self._engine.accepting:
            raise NotReady(STOPPING)
        return work()
