"""A request's answers while they are made: the consumer's end of its sequences.

Iterated, it gives their steps as they come; the last of each sequence has a finish reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

from handlers.engine.consumer import Consumer

if TYPE_CHECKING:
    from handlers.engine.consumer import Turned
    from handlers.engine.params import GenerationStats, Step
    from handlers.engine.sequence import Sequence
    from handlers.errors import RequestError


class Generation(Consumer):
    """Steps of one submission, for one consumer: `async for`, or `for` where no thread runs.

    A consumer that leaves early calls `cancel()`, else the sequences keep their slots to their
    ends.
    """

    def __init__(self, sequences: Items[Sequence], engine: Turned) -> None:
        super().__init__(engine)
        self._sequences = sequences
        self._steps: deque[Step] = deque()
        self._unfinished = len(sequences)

    @property
    def ready(self) -> bool:
        """Whether there is a step."""
        return bool(self._steps)

    @property
    def fault(self) -> RequestError | None:
        """Why a sequence failed, once a step has said FinishReason.FAULT."""
        faults = (sequence.fault for sequence in self._sequences)
        return next((fault for fault in faults if fault is not None), None)

    def stats(self, index: int = 0) -> GenerationStats:
        """What the prompt of this place in the submission has taken so far."""
        return self._sequences[index].stats()

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
        self.turn()
        return self._take()

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Step:
        if not self._unfinished:
            raise StopAsyncIteration
        await self.wait()
        return self._take()

    def _take(self) -> Step:
        step = self._steps.popleft()
        self._unfinished -= step.finish_reason is not None
        return step

    def deliver(self, step: Step) -> None:
        """Called by the engine, from the thread that turns the crank."""
        self._steps.append(step)
