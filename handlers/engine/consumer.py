"""Whoever waits for what an engine makes.

Two ways, one surface:

    inline    the consumer itself turns the engine's crank, and `await` never suspends
    threaded  the engine's thread turns it, and the consumer sleeps on its event loop

asyncio is imported by the first consumer that has to sleep: importing it takes 25 to 65 ms,
which the inline way never pays. The base of a generation and of an encoder's request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from handlers.errors import EngineFault

if TYPE_CHECKING:
    import asyncio


class Turned(Protocol):
    """What a consumer asks of its engine."""

    @property
    def threaded(self) -> bool:
        """Whether a thread turns the crank."""

    def step(self) -> bool:
        """One turn. False where nobody waits for anything."""


class Consumer(ABC):
    """One waiting party, which leaves early by `cancel()`."""

    def __init__(self, engine: Turned) -> None:
        self._engine = engine
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where the consumer sleeps, once it has."""
        self._awakening: asyncio.Future[None] | None = None

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether there is something to take."""

    @abstractmethod
    def cancel(self) -> None:
        """Asks for nothing more. From any thread, any number of times."""

    async def wait(self) -> None:
        """Returns once there is something to take."""
        while not self.ready:
            if self._engine.threaded:
                await self._sleep()
            else:
                self._step()

    def turn(self) -> None:
        """The same without `await`, where no thread runs."""
        if self._engine.threaded:
            raise RuntimeError("The engine's thread turns the crank: use `async for` or `await`.")
        while not self.ready:
            self._step()

    def _step(self) -> None:
        """One turn. Raises EngineFault where the engine does not know of this consumer.

        It would wait without an end. Another thread's turn may have served it meanwhile.
        """
        if not self._engine.step() and not self.ready:
            raise EngineFault("The engine has lost a request: nothing more is computed for it.")

    async def _sleep(self) -> None:
        """Returns once the engine has made something.

        The loop is known before `ready` is looked at again, so that what is delivered in
        between is either seen here or wakes the loop.
        """
        import asyncio

        self.loop = asyncio.get_running_loop()
        if self.ready:
            return
        self._awakening = self.loop.create_future()
        try:
            await self._awakening
        except asyncio.CancelledError:
            self.cancel()
            raise

    def awake(self) -> None:
        """Called on the consumer's event loop."""
        if self._awakening is not None and not self._awakening.done():
            self._awakening.set_result(None)


def wake(consumers: Iterable[Consumer]) -> None:
    """Wakes those that sleep, with one call into each of their event loops."""
    sleepers: dict[asyncio.AbstractEventLoop, list[Consumer]] = {}
    for consumer in consumers:
        if consumer.loop is not None:
            sleepers.setdefault(consumer.loop, []).append(consumer)
    for loop, group in sleepers.items():
        try:
            loop.call_soon_threadsafe(_wake_all, group)
        except RuntimeError:  # the loop is closed: nobody is left to read these answers
            for consumer in group:
                consumer.cancel()


def _wake_all(consumers: list[Consumer]) -> None:
    for consumer in consumers:
        consumer.awake()
