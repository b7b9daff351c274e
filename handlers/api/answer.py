"""From a prompt to a whole answer or to a stream of events; the shapes are the endpoints'.

Does not know chat or completions. Called by the endpoints; an error before the first token is
raised, so that it can still be an HTTP status, and a later one becomes an event of the stream.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from handlers.api import error_body, sse
from handlers.api.messages import Response, StreamResponse
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from handlers.engine.sequence import SamplingParams
    from handlers.text.completion import Completer, TextDelta

Bodies = list[dict[str, object]]
"""What becomes JSON: a stream's events, or the choices of one body."""

JSON_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    """One completion to make."""

    prompt_ids: list[int]
    params: SamplingParams
    stop: tuple[str, ...]
    deadline: float | None
    prompt_field: str
    """The request's field that an error about the prompt names."""

    async def deltas(self, completer: Completer) -> AsyncGenerator[TextDelta]:
        """Raises as Completer.complete does."""
        pieces = completer.complete(self.prompt_ids, self.params, self.stop, self.deadline)
        try:
            async for delta in pieces:
                yield delta
        except InvalidRequest as error:  # the engine does not know the request's fields
            error.param = self.prompt_field
            raise
        finally:
            await pieces.aclose()

    def usage(self, completion_tokens: int) -> dict[str, int]:
        """OpenAI's count."""
        prompt_tokens = len(self.prompt_ids)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all bodies of one answer share."""

    model: str
    prefix: str
    """OpenAI's: "chatcmpl" or "cmpl"."""
    key: str = field(default_factory=lambda: os.urandom(16).hex())
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: str, choices: Bodies) -> dict[str, object]:
        """A body of OpenAI's `object` kind."""
        return {
            "id": f"{self.prefix}-{self.key}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


class StreamShape(Protocol):
    """How one endpoint writes its events."""

    def opening(self) -> Bodies:
        """What comes before the first text."""
        ...

    def delta(self, delta: TextDelta) -> Bodies:
        """The text, and behind the last text what ends the answer."""
        ...


async def collect(completer: Completer, call: Call) -> TextDelta:
    """The whole answer as one delta. Raises what the completion raises, also in its middle."""
    deltas = [delta async for delta in call.deltas(completer)]
    return replace(deltas[-1], text="".join(delta.text for delta in deltas))


def json_response(body: object) -> Response:
    """Status 200."""
    return Response(200, JSON_HEADERS, msgspec.json.encode(body))


async def stream(completer: Completer, call: Call, shape: StreamShape) -> StreamResponse:
    """Waits for the first delta: raises what goes wrong before it."""
    chunks = _events(call.deltas(completer), shape)
    await anext(chunks)
    return StreamResponse(200, sse.HEADERS, chunks)


async def _events(deltas: AsyncGenerator[TextDelta], shape: StreamShape) -> AsyncGenerator[bytes]:
    """An empty chunk once there is a first delta, then the events.

    The empty chunk is for `stream`: it starts this generator, so that closing it runs the
    `finally` below even when the client is gone before the first event.
    """
    try:
        first = await anext(deltas)
        yield b""
        try:
            for body in shape.opening() + shape.delta(first):
                yield sse.event(body)
            async for delta in deltas:
                for body in shape.delta(delta):
                    yield sse.event(body)
            yield sse.DONE
        except Exception as error:  # noqa: BLE001 - the status is sent: an event is all that is left
            yield sse.event(error_body.describe(error))
    finally:
        await deltas.aclose()
