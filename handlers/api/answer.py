"""From prompts to whole answers or to a stream of events; the shapes are the endpoints'.

Does not know chat or completions. Called by the endpoints; an error before the first token is
raised, so that it can still be an HTTP status, and a later one becomes an event of the stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec
from msgspec.structs import replace

from handlers.api import error_body, sse
from handlers.api.deltas import Answer, Delta, joined, plain
from handlers.api.json_response import json_response
from handlers.api.messages import Response, StreamResponse
from handlers.api.tools import CallReader
from handlers.api.usage import timing_head, timing_whole, usage_body
from handlers.errors import InvalidRequest, ends_a_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from handlers.api.model import Model
    from handlers.engine.engine import Prompt
    from handlers.engine.sequence import SamplingParams, Usage
    from handlers.text.completion import Completer, TextDelta
    from handlers.text.grammar import GrammarConstraint
    from handlers.text.tool_calls import ToolFormat

Bodies = list[dict[str, object]]
"""What becomes JSON: a stream's events, or the choices of one body."""


class Call(msgspec.Struct, frozen=True):
    """Completions to make: a choice for each prompt."""

    prompts: list[Prompt]
    stop: tuple[str, ...]
    deadline: float | None
    prompt_field: str
    """The request's field that an error about the prompt names."""
    choices_each: int = 1
    """How many prompts in a row are one and the same."""
    tool_format: ToolFormat | None = None
    """How the model writes the calls that are to be read out of its answers."""

    async def deltas(self, completer: Completer) -> AsyncGenerator[Delta]:
        """Raises as Completer.complete does."""
        pieces = completer.complete(self.prompts, self.stop, self.deadline)
        readers = self._readers()
        try:
            async for piece in pieces:
                delta = readers[piece.index](piece)
                if delta is not None:
                    yield delta
        except InvalidRequest as error:  # the engine does not know the request's fields
            error.param = self._field(error.param)
            raise
        finally:
            await pieces.aclose()

    def _readers(self) -> list[Callable[[TextDelta], Delta | None]]:
        """One for each choice."""
        if self.tool_format is None:
            return [plain] * len(self.prompts)
        return [CallReader(self.tool_format.parser()).read for _ in self.prompts]

    def usage(self, usages: Sequence[Usage]) -> dict[str, object]:
        """OpenAI's count. `usages`: one of each choice."""
        return usage_body(usages, self.choices_each)

    def _field(self, engines: str | None) -> str:
        if engines is None:  # more answers than it can hold
            return "n" if self.choices_each > 1 else self.prompt_field
        return self.prompt_field if engines == "prompt" else engines


def spread(
    ids: list[int], params: SamplingParams, count: int, grammar: GrammarConstraint | None = None
) -> list[Prompt]:
    """`count` choices of one prompt. With a seed, each of them gets the next one.

    The prompt's own logprobs are the same for all, so the first choice alone brings them.
    """
    from handlers.engine.engine import Prompt  # it imports numpy, which start loads elsewhere

    return [
        Prompt(
            ids,
            params if place == 0 else _later(params, place),
            None if grammar is None else grammar.copy(),
        )
        for place in range(count)
    ]


def _later(params: SamplingParams, place: int) -> SamplingParams:
    seed = None if params.seed is None else params.seed + place
    return replace(params, seed=seed, prompt_logprobs=None)


class Stamp(msgspec.Struct, frozen=True):
    """What all bodies of one answer share."""

    model: str
    fingerprint: str
    prefix: str
    """OpenAI's: "chatcmpl" or "cmpl"."""
    key: str = msgspec.field(default_factory=lambda: os.urandom(16).hex())
    created: int = msgspec.field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, model: Model, prefix: str) -> Stamp:
        """A new answer's."""
        return cls(model.id, model.fingerprint, prefix)

    def body(self, kind: str, choices: Bodies) -> dict[str, object]:
        """A body of OpenAI's `object` kind."""
        return {
            "id": f"{self.prefix}-{self.key}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


class StreamShape(Protocol):
    """How one endpoint writes its events. What it does not say itself is as in OpenAI's chat."""

    end: ClassVar[bytes] = sse.DONE
    """What comes last, unless the stream broke."""

    def opening(self) -> Bodies:
        """What comes before the first text."""
        ...

    def delta(self, delta: Delta) -> Bodies:
        """The text, and behind a choice's last text what ends it."""
        ...

    def closing(self, usages: Sequence[Usage]) -> Bodies:
        """What comes when all choices have ended. `usages`: one of each."""
        ...

    def failed(self, error: BaseException) -> Bodies:
        """What comes when the stream breaks: nothing follows it."""
        return [error_body.describe(error)]

    def frame(self, body: dict[str, object]) -> bytes:
        """One event on the wire."""
        return sse.event(body)


async def collect(completer: Completer, call: Call) -> list[Answer]:
    """Every choice, whole. Raises what the completion raises, also in its middle."""
    parts: list[list[Delta]] = [[] for _ in call.prompts]
    async for delta in call.deltas(completer):
        parts[delta.index].append(delta)
    return [joined(deltas) for deltas in parts]


def timed_response(body: object, answers: Sequence[Answer]) -> Response:
    """Status 200, with the times that its choices took."""
    return json_response(body, timing_whole(answer.usage for answer in answers))


async def stream(completer: Completer, call: Call, shape: StreamShape) -> StreamResponse:
    """Waits for the first delta: raises what goes wrong before it."""
    deltas = call.deltas(completer)
    first = await anext(deltas)
    failures: list[BaseException] = []
    counts: dict[str, object] = {}
    chunks = _events(first, deltas, shape, failures, lambda used: counts.update(call.usage(used)))
    await anext(chunks)
    headers = {**sse.HEADERS, **timing_head(first.usage)}
    return StreamResponse(200, headers, chunks, failures, counts)


async def _events(
    first: Delta,
    deltas: AsyncGenerator[Delta],
    shape: StreamShape,
    failures: list[BaseException],
    count: Callable[[Sequence[Usage]], None],
) -> AsyncGenerator[bytes]:
    """An empty chunk, then the events. What breaks them is added to `failures`.

    `count` gets what the choices took, once all of them have ended.

    The empty chunk is for `stream`: it starts this generator, so that closing it runs the
    `finally` below even when the client is gone before the first event.
    """
    usages = {first.index: first.usage}
    try:
        yield b""
        try:
            for body in shape.opening() + shape.delta(first):
                yield shape.frame(body)
            async for delta in deltas:
                usages[delta.index] = delta.usage
                for body in shape.delta(delta):
                    yield shape.frame(body)
            used = [usages[index] for index in sorted(usages)]
            count(used)
            for body in shape.closing(used):
                yield shape.frame(body)
            if shape.end:
                yield shape.end
        except BaseException as error:  # the status is sent: an event is all that is left
            if ends_a_task(error):
                raise
            failures.append(error)
            for body in shape.failed(error):
                yield shape.frame(body)
    finally:
        await deltas.aclose()
