"""A request's answers while they are made: the consumer's end of its sequences.

Iterated, it gives their steps as they come; the last of each sequence has a finish reason. Two
ways, one surface:

    inline    the consumer itself turns the engine's crank, and `await` never suspends
    threaded  the engine's thread turns it, and the consumer sleeps on its event loop

asyncio is imported by the first consumer that has to sleep: importing it takes 25 to 65 ms,
which the inline way never pays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from handlers.engine.sequence import Sequence, Step, Usage
    from handlers.errors import RequestError


class Crank(Protocol):
    """What a generation asks of the engine."""

    @property
    def threaded(self) -> bool:
        """Whether a thread turns the crank."""

    def step(self) -> None:
        """One turn."""


class Generation:
    """Steps of one submission, for one consumer: `async for`, or `for` where no thread runs.

    A consumer that leaves early calls `cancel()`, else the sequences keep their slots to their
    ends.
    """

    def __init__(self, sequences: Items[Sequence], crank: Crank) -> None:
        self._sequences = sequences
        self._crank = crank
        self._steps: deque[Step] = deque()
        self._unfinished = len(sequences)
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where the consumer sleeps, once it has."""
        self._awakening: asyncio.Future[None] | None = None

    @property
    def fault(self) -> RequestError | None:
        """Why a sequence failed, once a step has said FinishReason.FAULT."""
        faults = (sequence.fault for sequence in self._sequences)
        return next((fault for fault in faults if fault is not None), None)

    def usage(self, index: int = 0) -> Usage:
        """What the prompt of this place in the submission has taken so far."""
        return self._sequences[index].usage()

    def cancel(self) -> None:
        """Gives the slots up at the next step. From any thread, any number of times."""
        for sequence in self._sequences:
            sequence.cancelled = True

    def cancel_one(self, index: int) -> None:
        """Gives up one slot, as `cancel` does: that sequence ends with a step of its own."""
        self._sequences[index].cancelled = True

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Step:
        if not self._unfinished:
            raise StopIteration
        if self._crank.threaded:
            raise RuntimeError("The engine's thread turns the crank: use `async for`.")
        while not self._steps:
            self._crank.step()
        return self._take()

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Step:
        if not self._unfinished:
            raise StopAsyncIteration
        while not self._steps:
            if self._crank.threaded:
                await self._sleep()
            else:
                self._crank.step()
        return self._take()

    def _take(self) -> Step:
        step = self._steps.popleft()
        self._unfinished -= step.finish_reason is not None
        return step

    async def _sleep(self) -> None:
        """Returns once there is a step.

        The loop is known before `_steps` is looked at again, so that a step delivered in
        between is either seen here or wakes the loop.
        """
        import asyncio

        self.loop = asyncio.get_running_loop()
        if self._steps:
            return
        self._awakening = self.loop.create_future()
        try:
            await self._awakening
        except asyncio.CancelledError:
            self.cancel()
            raise

    def deliver(self, step: Step) -> None:
        """Called by the engine, from the thread that turns the crank."""
        self._steps.append(step)

    def awake(self) -> None:
        """Called on the consumer's event loop."""
        if self._awakening is not None and not self._awakening.done():
            self._awakening.set_result(None)


def wake(generations: Iterable[Generation]) -> None:
    """Wakes the consumers that sleep, with one call into each of their event loops."""
    sleepers: dict[asyncio.AbstractEventLoop, list[Generation]] = {}
    for generation in generations:
        if generation.loop is not None:
            sleepers.setdefault(generation.loop, []).append(generation)
    for loop, group in sleepers.items():
        try:
            loop.call_soon_threadsafe(_wake_all, group)
        except RuntimeError:  # the loop is closed: nobody is left to read these answers
            for generation in group:
                generation.cancel()


def _wake_all(generations: list[Generation]) -> None:
    for generation in generations:
        generation.awake()
