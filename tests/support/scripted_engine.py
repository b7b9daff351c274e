"""An engine that answers with the steps it was given. The real one has tests of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from handlers.api.http import run_sync
from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, GenerationStats, Prompt, SamplingParams, Step
from handlers.errors import ContextLengthExceeded, InvalidRequest, RequestError

T = TypeVar("T")


class ScriptedGeneration(Generation):
    """Counts the steps taken, and remembers whether it was cancelled, or one of its sequences."""

    fault: RequestError | None = None

    def __init__(self, steps: Iterable[Step], prompts: Sequence[Prompt] = ()) -> None:
        self._script = iter(steps)
        self._prompts = prompts
        self.taken = 0
        self.cancelled = False
        self.cancelled_ones: list[int] = []

    def __aiter__(self) -> ScriptedGeneration:
        return self

    async def __anext__(self) -> Step:
        for step in self._script:
            self.taken += 1
            return step
        raise StopAsyncIteration

    def stats(self, index: int = 0) -> GenerationStats:
        """Ahead of the steps taken, as an engine with a thread is."""
        return GenerationStats(len(self._prompts[index].ids), 0, 10_000, 1.0, 2.0, 3.0)

    def cancel(self) -> None:
        self.cancelled = True

    def cancel_one(self, index: int) -> None:
        self.cancelled_ones.append(index)


class ScriptedEngine(Engine):
    """Every submitted prompt gets the same steps, in turns, unless each has a script of its own.

    `refusal` is raised instead of them.
    """

    slots = 4
    accepting = True
    running = 1
    waiting = 2
    threaded = False
    guess_rate: float | None = None

    def __init__(
        self,
        steps: Sequence[Step] = (),
        *,
        scripts: Sequence[Sequence[Step]] | None = None,
        context_length: int = 256,
        refusal: BaseException | None = None,
    ) -> None:
        self.steps = steps
        self.scripts = scripts
        self.context_length = context_length
        self.refusal = refusal
        self.generation = ScriptedGeneration(())
        self.prompts: list[Prompt] = []
        self.deadline: float | None = None

    @property
    def prompt_ids(self) -> list[int]:
        """The first prompt's."""
        return list(self.prompts[0].ids)

    @property
    def params(self) -> SamplingParams:
        """The first prompt's."""
        return self.prompts[0].params

    def submit_all(
        self, prompts: Sequence[Prompt], deadline: float | None = None
    ) -> ScriptedGeneration:
        if self.refusal is not None:
            raise self.refusal
        if not all(prompt.ids for prompt in prompts):
            raise InvalidRequest("The prompt is empty.", param="prompt")
        if any(len(prompt.ids) >= self.context_length for prompt in prompts):
            raise ContextLengthExceeded("The prompt is too long.", param="prompt")
        self.prompts, self.deadline = list(prompts), deadline
        scripts = self.scripts or [self.steps] * len(prompts)
        self.generation = ScriptedGeneration(interleaved(scripts), prompts)
        return self.generation


def interleaved(scripts: Sequence[Sequence[Step]]) -> list[Step]:
    """A step of each script by turns, as a batch gives them."""
    longest = max(map(len, scripts), default=0)
    return [
        replace(script[turn], index=index)
        for turn in range(longest)
        for index, script in enumerate(scripts)
        if turn < len(script)
    ]


def steps(ids: Iterable[int], end: FinishReason | None = FinishReason.EOS) -> list[Step]:
    """A step for each id and the one that ends them; `None` for no end."""
    last = [] if end is None else [Step(None, end)]
    return [Step(token_id) for token_id in ids] + last


async def _all(items: AsyncGenerator[T]) -> list[T]:
    return [item async for item in items]


def drain(items: AsyncGenerator[T]) -> list[T]:
    """All that an async generator gives."""
    return run_sync(_all(items))


def subclasses(root: type[RequestError]) -> Iterator[type[RequestError]]:
    """The error classes below `root`, at any depth."""
    for child in root.__subclasses__():
        yield child
        yield from subclasses(child)
