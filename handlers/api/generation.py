"""Runs a generation request of any endpoint: prompts in, whole choices or a stream of events out.

An error before the first token is raised, so that it can still be an HTTP status. A later one
becomes an event of the stream. What the choices took is counted here, too: usage and Server-Timing.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec.structs import replace

from handlers.api.error_responses import error_body
from handlers.api.http import (
    SSE_DONE,
    SSE_HEADERS,
    Response,
    StreamOutcome,
    StreamResponse,
    TokenUsage,
    json_response,
    server_timing,
    sse_event,
)
from handlers.api.schemas import ResponseSchema
from handlers.engine.params import Prompt
from handlers.errors import GrammarTooComplex, InvalidRequest, as_request_error, ends_a_task
from handlers.text.answer_format import ToolCallDelta
from handlers.text.completion import Delta

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from handlers.api.model import DecoderModel
    from handlers.engine.params import GenerationStats, SamplingParams
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.grammar.thinking import ThinkingConstraint
    from handlers.text.answer_format import AnswerFormat
    from handlers.text.completion import Completer

Events = list[object]
"""Bodies of a stream's events, which become JSON."""


class GenerationRequest(msgspec.Struct, frozen=True):
    """The prompts to complete for one HTTP request, with a choice for each of them."""

    prompts: list[Prompt]
    stop: tuple[str, ...]
    deadline: float | None
    """`time.monotonic()` seconds."""
    prompt_field: str
    """The request's field that has the prompt, for errors."""
    n: int = 1
    """How many prompts in a row are the same."""
    grammar_field: str | None = None
    """The request's field that has the grammar, for errors."""
    answer_format: AnswerFormat | None = None
    """How to read the answers' thoughts and tool calls; without it all is text."""
    thoughts_hidden: bool = False
    """Whether the thoughts before an answer are left out, and only counted."""

    async def deltas(self, completer: Completer) -> AsyncGenerator[Delta]:
        """Yields the deltas of all choices as they come. Raises as Completer.complete does."""
        deltas = completer.complete(self.prompts, self.stop, self.deadline, self.answer_format)
        try:
            async for delta in deltas:
                yield replace(delta, reasoning="") if self.thoughts_hidden else delta
        except (InvalidRequest, GrammarTooComplex) as error:
            raise type(error)(str(error), param=self._param(error)) from None
        finally:
            await deltas.aclose()

    async def run(self, completer: Completer) -> list[Delta]:
        """Waits for all choices. Raises what the completion raises, also in its middle."""
        choices: list[list[Delta]] = [[] for _ in self.prompts]
        async for delta in self.deltas(completer):
            choices[delta.index].append(delta)
        return [merge(deltas) for deltas in choices]

    async def stream(self, completer: Completer, serializer: StreamSerializer) -> StreamResponse:
        """Starts a stream, once the first delta is there. Raises what fails before it."""
        deltas = self.deltas(completer)
        first = await anext(deltas)
        outcome = StreamOutcome()
        chunks = self._chunks(first, deltas, serializer, outcome)
        await anext(chunks)
        return StreamResponse(200, {**SSE_HEADERS, **stream_timing(first.stats)}, chunks, outcome)

    def usage(self, choices: Iterable[Delta]) -> TokenUsage:
        """Adds up the tokens of all choices. `choices`: the last delta of each, by its index."""
        return total_usage([choice.stats for choice in choices], self.n)

    async def _chunks(
        self,
        first: Delta,
        deltas: AsyncGenerator[Delta],
        serializer: StreamSerializer,
        outcome: StreamOutcome,
    ) -> AsyncGenerator[bytes]:
        """Yields an empty chunk, then the events, and fills in `outcome`.

        The empty chunk is for `stream`: it starts this generator, so that closing it runs the
        `finally` below even when the client is gone before the first event.
        """
        last = {first.index: first}
        try:
            yield b""
            try:
                for event in serializer.start() + serializer.delta(first):
                    yield serializer.encode_event(event)
                async for delta in deltas:
                    last[delta.index] = delta
                    for event in serializer.delta(delta):
                        yield serializer.encode_event(event)
                outcome.usage = self.usage([last[index] for index in sorted(last)])
                for event in serializer.finish(outcome.usage):
                    yield serializer.encode_event(event)
                if serializer.end:
                    yield serializer.end
            except BaseException as error:  # the status is sent: an event is all that is left
                if ends_a_task(error):
                    raise
                outcome.failure = as_request_error(error)
                for event in serializer.error(error):
                    yield serializer.encode_event(event)
        finally:
            await deltas.aclose()

    def _param(self, error: InvalidRequest | GrammarTooComplex) -> str | None:
        """Returns the request's field that an error of the engine is about."""
        if isinstance(error, GrammarTooComplex):
            return self.grammar_field
        if error.param is None:  # more choices than the engine can hold
            return "n" if self.n > 1 else self.prompt_field
        return self.prompt_field if error.param == "prompt" else error.param


class StreamSerializer(ABC):
    """Base of the classes that turn the deltas of one answer into an endpoint's events.

    The last bytes, errors and the encoding are those of OpenAI's chat, unless a class has its own.
    """

    end: ClassVar[bytes] = SSE_DONE
    """Sent last, unless the stream broke."""

    @abstractmethod
    def start(self) -> Events:
        """Returns the events before the first text."""

    @abstractmethod
    def delta(self, delta: Delta) -> Events:
        """Returns the events of a delta; those of a choice's last delta also end the choice."""

    @abstractmethod
    def finish(self, usage: TokenUsage) -> Events:
        """Returns the events after the last choice has ended. `usage`: of all choices together."""

    def error(self, error: BaseException) -> Events:
        """Returns the events that end a stream which breaks."""
        return [error_body(error)]

    def encode_event(self, event: object) -> bytes:
        """Encodes one event as it is sent."""
        return sse_event(event)


class PromptTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """`cached_tokens` of the prompt were read from an earlier request's cache."""

    cached_tokens: int


class CompletionTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """`reasoning_tokens` of the answer are thoughts, which come apart from its text."""

    reasoning_tokens: int


class Usage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, tokens: TokenUsage) -> Usage:
        """Returns the counts as OpenAI has them."""
        return cls(
            prompt_tokens=tokens.prompt_tokens,
            completion_tokens=tokens.completion_tokens,
            total_tokens=tokens.prompt_tokens + tokens.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=tokens.cached_tokens),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=tokens.reasoning_tokens
            ),
        )


class ResponseMetadata(msgspec.Struct, frozen=True):
    """The members that all bodies of one answer share."""

    model: str
    system_fingerprint: str
    key: str = msgspec.field(default_factory=lambda: os.urandom(16).hex())
    """The random part of the answer's ids."""
    created: int = msgspec.field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, model: DecoderModel) -> ResponseMetadata:
        """Makes the metadata of a new answer."""
        return cls(model.id, model.fingerprint)


def expand_n(
    ids: list[int],
    params: SamplingParams,
    n: int,
    grammar: GrammarConstraint | ThinkingConstraint | None = None,
) -> list[Prompt]:
    """Returns `n` choices of one prompt. With a seed, each of them gets the next one.

    The prompt's own logprobs are the same for all, so only the first choice asks for them.
    """
    return [
        Prompt(
            ids,
            params if index == 0 else _with_seed_offset(params, index),
            None if grammar is None else grammar.copy(),
        )
        for index in range(n)
    ]


def _with_seed_offset(params: SamplingParams, index: int) -> SamplingParams:
    seed = None if params.seed is None else params.seed + index
    return replace(params, seed=seed, prompt_logprobs=None)


def merge(deltas: Sequence[Delta]) -> Delta:
    """Returns all deltas of one choice as one, with whole tool calls."""
    last = deltas[-1]
    return Delta(
        index=last.index,
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        finish_reason=last.finish_reason,
        stats=last.stats,
        tool_calls=_merge_calls(call for delta in deltas for call in delta.tool_calls),
        tokens=tuple(token for delta in deltas for token in delta.tokens),
        prompt_logprobs=deltas[0].prompt_logprobs,
        stop_string=last.stop_string,
    )


def _merge_calls(pieces: Iterable[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    calls: dict[int, ToolCallDelta] = {}
    for piece in pieces:
        call = calls.setdefault(piece.index, piece)
        if call is not piece:
            arguments = call.arguments + piece.arguments
            calls[piece.index] = replace(call, arguments=arguments)
    return tuple(calls.values())


def whole_response(body: object, choices: Sequence[Delta], usage: TokenUsage) -> Response:
    """Returns the response of a whole answer, with the times and the tokens that it took."""
    return json_response(body, answer_timing([choice.stats for choice in choices]), usage)


def total_usage(stats: Sequence[GenerationStats], n: int) -> TokenUsage:
    """Adds up the tokens of all choices, of which each prompt has `n` in a row.

    A prompt counts once, however many choices it has.
    """
    prompts = stats[::n]
    return TokenUsage(
        prompt_tokens=sum(each.prompt_tokens for each in prompts),
        completion_tokens=sum(each.completion_tokens for each in stats),
        cached_tokens=sum(each.cached_tokens for each in prompts),
        reasoning_tokens=sum(each.reasoning_tokens for each in stats),
        drafted_tokens=sum(each.drafted_tokens for each in stats),
        accepted_tokens=sum(each.accepted_tokens for each in stats),
    )


def stream_timing(stats: GenerationStats) -> dict[str, str]:
    """Returns the header of a stream: the times that are over when its first text leaves."""
    return server_timing(queue=stats.queue_ms, prefill=stats.prefill_ms)


def answer_timing(stats: Sequence[GenerationStats]) -> dict[str, str]:
    """Returns the header of a whole answer: of its choices, which run side by side, the longest."""
    return server_timing(
        queue=max(each.queue_ms for each in stats),
        prefill=max(each.prefill_ms for each in stats),
        decode=max(each.decode_ms for each in stats),
    )
