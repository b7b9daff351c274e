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

from handlers.api.deltas import Answer, Delta, joined, plain
from handlers.api.error_responses import error_body
from handlers.api.http import (
    SSE_DONE,
    SSE_HEADERS,
    Response,
    StreamOutcome,
    StreamResponse,
    json_response,
    sse_event,
)
from handlers.api.tools import CallReader
from handlers.api.usage import timing_head, timing_whole, total_usage
from handlers.engine.params import Prompt
from handlers.errors import InvalidRequest, ends_a_task
from handlers.text.tool_parser import ToolCallParser

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from handlers.api.http import TokenUsage
    from handlers.api.model import DecoderModel
    from handlers.engine.params import GenerationStats, Prompt, SamplingParams
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.text.completion import Completer, TextDelta
    from handlers.text.tool_format import ToolFormat

Bodies = list[dict[str, object]]
"""The events of a stream, or the choices of one body, before they become JSON."""


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
        """Yields what the engine makes of every prompt. Raises as Completer.complete does."""
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
        """Makes a reader of tool calls for each choice."""
        if self.tool_format is None:
            return [plain] * len(self.prompts)
        return [CallReader(ToolCallParser(self.tool_format)).read for _ in self.prompts]

    def usage(self, usages: Sequence[GenerationStats]) -> TokenUsage:
        """Adds up the tokens of all choices. `usages`: one of each."""
        return total_usage(usages, self.choices_each)

    def _field(self, engines: str | None) -> str:
        if engines is None:  # more answers than it can hold
            return "n" if self.choices_each > 1 else self.prompt_field
        return self.prompt_field if engines == "prompt" else engines


def spread(
    ids: list[int], params: SamplingParams, count: int, grammar: GrammarConstraint | None = None
) -> list[Prompt]:
    """Makes `count` choices of one prompt. With a seed, each of them gets the next one.

    The prompt's own logprobs are the same for all, so the first choice alone brings them.
    """
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
    """The members that all bodies of one answer share."""

    model: str
    fingerprint: str
    prefix: str
    """OpenAI's: "chatcmpl" or "cmpl"."""
    key: str = msgspec.field(default_factory=lambda: os.urandom(16).hex())
    created: int = msgspec.field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, model: DecoderModel, prefix: str) -> Stamp:
        """Makes the stamp of a new answer."""
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

    end: ClassVar[bytes] = SSE_DONE
    """What comes last, unless the stream broke."""

    def opening(self) -> Bodies:
        """Makes the events that come before the first text."""
        ...

    def delta(self, delta: Delta) -> Bodies:
        """Makes the events of a text, and behind a choice's last text those that end it."""
        ...

    def closing(self, usages: Sequence[GenerationStats]) -> Bodies:
        """Makes the events that come when all choices have ended. `usages`: one of each."""
        ...

    def failed(self, error: BaseException) -> Bodies:
        """Makes the events that end a stream which breaks."""
        return [error_body(error)]

    def frame(self, body: dict[str, object]) -> bytes:
        """Writes one event as it goes over the wire."""
        return sse_event(body)


async def collect(completer: Completer, call: Call) -> list[Answer]:
    """Waits for every choice. Raises what the completion raises, also in its middle."""
    parts: list[list[Delta]] = [[] for _ in call.prompts]
    async for delta in call.deltas(completer):
        parts[delta.index].append(delta)
    return [joined(deltas) for deltas in parts]


def timed_response(body: object, call: Call, answers: Sequence[Answer]) -> Response:
    """Makes an answer of status 200 whose headers tell how long its choices took."""
    usages = [answer.usage for answer in answers]
    return json_response(body, timing_whole(usages), call.usage(usages))


async def stream(completer: Completer, call: Call, shape: StreamShape) -> StreamResponse:
    """Begins a stream, once the first delta is there. Raises what goes wrong before it."""
    deltas = call.deltas(completer)
    first = await anext(deltas)
    outcome = StreamOutcome()
    chunks = _events(first, deltas, call, shape, outcome)
    await anext(chunks)
    headers = {**SSE_HEADERS, **timing_head(first.usage)}
    return StreamResponse(200, headers, chunks, outcome)


async def _events(
    first: Delta,
    deltas: AsyncGenerator[Delta],
    call: Call,
    shape: StreamShape,
    outcome: StreamOutcome,
) -> AsyncGenerator[bytes]:
    """Yields an empty chunk, then the events, and fills in how they ended.

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
            outcome.usage = call.usage(used)
            for body in shape.closing(used):
                yield shape.frame(body)
            if shape.end:
                yield shape.end
        except BaseException as error:  # the status is sent: an event is all that is left
            if ends_a_task(error):
                raise
            outcome.failures.append(error)
            for body in shape.failed(error):
                yield shape.frame(body)
    finally:
        await deltas.aclose()
