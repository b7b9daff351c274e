"""Work of many milliseconds that is not the engine's: reading long prompts, compiling grammars.

It would stop the event loop, and with it every stream and /healthz, so it has threads of its own.
Each kind has a lane: who compiles for a second keeps nobody from having a prompt read. Knows
nothing of what it runs. Called by the endpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from handlers.errors import NotReady, Overloaded

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")


class Engine(Protocol):
    """What is needed of handlers.engine.engine.Engine."""

    @property
    def threaded(self) -> bool: ...

    @property
    def accepting(self) -> bool: ...


class Lane:
    """A few threads for one kind of work, and a queue that has an end."""

    def __init__(self, name: str, engine: Engine, *, threads: int, limit: int) -> None:
        """`name`: of the work, for errors. `limit`: requests that are in the lane at most."""
        self._name = name
        self._engine = engine
        self._threads = threads
        self._limit = limit
        self._inside = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives: in a thread where an event loop serves others meanwhile, else at once.

        Raises Overloaded, NotReady and what `work` raises. A request that is cancelled while it
        waits is not worked on.
        """
        if not self._engine.threaded:  # nor is there a loop
            return self._at_its_turn(work)
        if self._inside >= self._limit:
            raise Overloaded(
                f"{self._inside} requests wait for {self._name}, which is all that may: try again "
                f"later."
            )
        import asyncio

        self._inside += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._at_its_turn, work)
        finally:
            self._inside -= 1

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(self._threads, self._name)

    def _at_its_turn(self, work: Callable[[], T]) -> T:
        """A server that is stopping would refuse the request behind it: it ends without the work.

        The interpreter waits for these threads before it ends.
        """
        if not self._engine.accepting:
            raise NotReady("The server is stopping: try another instance.")
        return work()
