"""A prompt's text to ids, and the engine's ids to the text of an answer.

Does not know HTTP or chat. Called by the API; the engine below it knows only ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from handlers.engine.sequence import FinishReason
from handlers.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFault,
    InvalidRequest,
    NotReady,
)
from handlers.text.stop_strings import StopStrings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from handlers.engine.sequence import SamplingParams, Step
    from handlers.text.incremental import IncrementalDecoder
    from handlers.text.tokenizer import Tokenizer

Finish = Literal["stop", "length"]
"""OpenAI's words: the model or a stop string ended the answer, or it was cut."""


class Generation(Protocol):
    """One submitted sequence: its steps, which end with a step that has a finish_reason."""

    def __aiter__(self) -> AsyncIterator[Step]: ...

    @property
    def fault(self) -> EngineFault | None: ...

    def cancel(self) -> None: ...


class Engine(Protocol):
    """What is needed of handlers.engine.engine.Engine."""

    @property
    def context_length(self) -> int: ...

    def submit(
        self, prompt_ids: list[int], params: SamplingParams, deadline: float | None = None
    ) -> Generation: ...


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of an answer. Only the last one has a finish_reason; its text may be empty."""

    text: str
    finish_reason: Finish | None
    completion_tokens: int
    """Tokens generated so far, those of held-back text included."""


class Completer:
    """Completes prompts on one engine with one tokenizer."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer

    def encode(self, prompt: str, *, param: str, add_special_tokens: bool = False) -> list[int]:
        """The prompt's ids. `param` is the field that an error names.

        Raises InvalidRequest for an empty prompt, a null or a lone surrogate. Raises
        ContextLengthExceeded without reading the text when it is too long by its size alone:
        tokenising 1 MB takes 0.7 s, in which no other request would get a token.
        """
        context = self._engine.context_length
        if len(prompt) > context and len(prompt) > context * self._tokenizer.longest_token:
            raise ContextLengthExceeded(
                f"The prompt has {len(prompt):,} characters, which are more tokens than the "
                f"context of {context:,} tokens can hold. Shorten it.",
                param=param,
            )
        if "\0" in prompt:
            raise InvalidRequest(f"{param} has a null character: remove it.", param=param)
        try:
            ids = self._tokenizer.encode(prompt, add_special_tokens)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), param=param) from None
        if not ids:
            raise InvalidRequest("The prompt is empty: send at least one token.", param=param)
        return ids

    async def complete(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        stop: tuple[str, ...] = (),
        deadline: float | None = None,
    ) -> AsyncGenerator[TextDelta]:
        """The answer, piece by piece. Closing the iterator early frees the engine's slot.

        `deadline` is in seconds of time.monotonic(). Raises what Engine.submit raises,
        DeadlineExceeded or NotReady when the sequence ends before its first token, and
        EngineFault.
        """
        generation = self._engine.submit(prompt_ids, params, deadline)
        answer = _Answer(self._tokenizer.decoder(), StopStrings(stop))
        try:
            async for step in generation:
                if step.finish_reason is FinishReason.FAULT:
                    raise generation.fault or EngineFault("The engine gave no reason.")
                delta = answer.add(step)
                if delta.text or delta.finish_reason:
                    yield delta
                if delta.finish_reason:
                    return
        finally:
            generation.cancel()


class _Answer:
    """Steps in, deltas out."""

    def __init__(self, decoder: IncrementalDecoder, stops: StopStrings) -> None:
        self._decoder = decoder
        self._stops = stops
        self._tokens = 0

    def add(self, step: Step) -> TextDelta:
        text = ""
        if step.token_id is not None:
            self._tokens += 1
            text = self._stops.push(self._decoder.push(step.token_id))
        if step.finish_reason is None:
            return self._delta(text, None)
        finish = self._finish(step.finish_reason)
        text += self._stops.push(self._decoder.flush())
        return self._delta(text + self._stops.flush(), finish)

    def _delta(self, text: str, finish: Finish | None) -> TextDelta:
        return TextDelta(text, "stop" if self._stops.matched else finish, self._tokens)

    def _finish(self, reason: FinishReason) -> Finish:
        if self._tokens == 0 and reason is FinishReason.DEADLINE:
            raise DeadlineExceeded(
                "The time for this request passed before its first token. Try again, with a "
                "shorter prompt or a longer timeout."
            )
        if self._tokens == 0 and reason is FinishReason.CANCELLED:
            raise NotReady("The server is shutting down. Try again.")
        return "stop" if reason is FinishReason.EOS else "length"
