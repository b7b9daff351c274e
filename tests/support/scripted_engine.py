"""An engine that answers with the steps it was given. The real one has tests of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TypeVar

from handlers.api.inline import run_inline
from handlers.engine.sequence import FinishReason, SamplingParams, Step
from handlers.errors import ContextLengthExceeded, EngineFault, RequestError

T = TypeVar("T")


class ScriptedGeneration:
    """Counts the steps taken, and remembers whether it was cancelled."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = iter(steps)
        self.taken = 0
        self.cancelled = False
        self.fault: EngineFault | None = None

    def __aiter__(self) -> ScriptedGeneration:
        return self

    async def __anext__(self) -> Step:
        for step in self._steps:
            self.taken += 1
            return step
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedEngine:
    """Every submitted prompt gets the same steps; `refusal` is raised instead of them."""

    slots = 4
    accepting = True
    running = 1
    waiting = 2

    def __init__(
        self,
        steps: Sequence[Step] = (),
        *,
        context_length: int = 256,
        refusal: Exception | None = None,
    ) -> None:
        self.steps = steps
        self.context_length = context_length
        self.refusal = refusal
        self.generation = ScriptedGeneration(())
        self.prompt_ids: list[int] = []
        self.params = SamplingParams(max_tokens=0)
        self.deadline: float | None = None

    def submit(
        self, prompt_ids: list[int], params: SamplingParams, deadline: float | None = None
    ) -> ScriptedGeneration:
        if self.refusal is not None:
            raise self.refusal
        if len(prompt_ids) >= self.context_length:
            raise ContextLengthExceeded("The prompt is too long.", param="prompt")
        self.prompt_ids, self.params, self.deadline = prompt_ids, params, deadline
        self.generation = ScriptedGeneration(self.steps)
        return self.generation


def steps(ids: Iterable[int], end: FinishReason | None = FinishReason.EOS) -> list[Step]:
    """A step for each id and the one that ends them; `None` for no end."""
    last = [] if end is None else [Step(None, end)]
    return [Step(token_id) for token_id in ids] + last


async def _all(items: AsyncGenerator[T]) -> list[T]:
    return [item async for item in items]


def drain(items: AsyncGenerator[T]) -> list[T]:
    """All that an async generator gives."""
    return run_inline(_all(items))


def subclasses(root: type[RequestError]) -> Iterator[type[RequestError]]:
    """The error classes below `root`, at any depth."""
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)
