"""The handle of a submitted request: its sequences' steps, as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Any

from handlers.engine.driver import RequestHandle

if TYPE_CHECKING:
    from handlers.engine.driver import EngineDriver
    from handlers.engine.params import GenerationStats, Step
    from handlers.engine.sequence import Sequence
    from handlers.errors import RequestError


class Generation(RequestHandle):
    """Iterates over the steps of one submission: `async for`, or `for` where no thread runs.

    The last step of each sequence has a finish reason. A caller that leaves early calls
    `cancel()`; otherwise the sequences keep their slots to their ends.
    """

    def __init__(self, sequences: Items[Sequence], engine: EngineDriver[Any, Any]) -> None:
        super().__init__(engine)
        self._sequences = sequences
        self._steps: deque[Step] = deque()
        self._unfinished = len(sequences)

    @property
    def ready(self) -> bool:
        """Returns whether there is a step."""
        return bool(self._steps)

    @property
    def fault(self) -> RequestError | None:
        """Returns why a sequence failed, once a step has had FinishReason.FAULT."""
        faults = (sequence.fault for sequence in self._sequences)
        return next((fault for fault in faults if fault is not None), None)

    def stats(self, index: int = 0) -> GenerationStats:
        """Returns what the prompt at this index of the submission has taken so far."""
        return self._sequences[index].stats()

    def cancel(self) -> None:
        """Frees the slots at the next step. From any thread, any number of times."""
        for sequence in self._sequences:
            sequence.cancelled = True

    def cancel_one(self, index: int) -> None:
        """Frees one slot, as `cancel` does: that sequence ends with a step of its own."""
        self._sequences[index].cancelled = True

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Step:
        if not self._unfinished:
            raise StopIteration
        self.wait_inline()
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
        """Adds a step. Called by the engine, from the thread that runs it."""
        self._steps.append(step)
