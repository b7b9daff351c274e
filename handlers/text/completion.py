"""The engine's ids to the texts of the answers.

Does not know HTTP or chat. Called by the API; the engine below it knows only ids.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from msgspec.structs import replace

from handlers.engine.params import FinishReason
from handlers.errors import (
    SHUT_DOWN,
    DeadlineExceeded,
    EngineFault,
    NotReady,
    RequestError,
)
from handlers.text.logprobs import token_logprob
from handlers.text.stop_strings import StopStrings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from handlers.engine.params import GenerationStats, Logprobs, Prompt, Step
    from handlers.text.logprobs import TokenLogprob
    from handlers.text.tokenizer import Tokenizer

Finish = Literal["stop", "length"]
"""OpenAI's words: the model or a stop string ended the answer, or it was cut."""


class Generation(Protocol):
    """The steps of all prompts of a submission, each of which ends with a finish_reason."""

    def __aiter__(self) -> AsyncIterator[Step]: ...

    @property
    def fault(self) -> RequestError | None: ...

    def stats(self, index: int) -> GenerationStats: ...

    def cancel(self) -> None: ...

    def cancel_one(self, index: int) -> None: ...


class Engine(Protocol):
    """What is needed of handlers.engine.engine.Engine."""

    def submit_all(self, prompts: Sequence[Prompt], deadline: float | None) -> Generation: ...


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of an answer. Only the last one has a finish_reason; its text may be empty."""

    text: str
    finish_reason: Finish | None
    usage: GenerationStats
    """So far: `completion_tokens` counts those of held-back text too."""
    index: int = 0
    """Which of the prompts it answers."""
    tokens: tuple[TokenLogprob, ...] = ()
    """Those that begin in the text, where logprobs are asked for."""
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    """Of the prompt's ids, on the first delta, where they are asked for."""


class Completer:
    """Completes prompts on one engine with one tokenizer."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer

    async def complete(
        self, prompts: Sequence[Prompt], stop: tuple[str, ...] = (), deadline: float | None = None
    ) -> AsyncGenerator[TextDelta]:
        """The answers, piece by piece as they come. Closing the iterator early frees the slots.

        `deadline` is in seconds of time.monotonic(). Raises what Engine.submit_all raises,
        DeadlineExceeded or NotReady when the time is over before any token, and EngineFault or
        GrammarTooComplex, also in the middle.
        """
        answers = [_Answer(self._tokenizer, stop) for _ in prompts]
        generation = self._engine.submit_all(prompts, deadline)
        unfinished = len(answers)
        try:
            async for step in generation:
                answer = answers[step.index]
                if answer.ended:
                    continue  # a stop string has ended it; the engine was a step ahead
                _raise_failure(step, generation, begun=any(one.tokens for one in answers))
                delta = answer.add(step, generation.stats(step.index))
                if delta is not None:
                    yield delta
                if answer.ended:
                    generation.cancel_one(step.index)
                    unfinished -= 1
                if not unfinished:
                    return
        finally:
            generation.cancel()


def _raise_failure(step: Step, generation: Generation, begun: bool) -> None:
    """`begun`: whether any answer has a token, so that there is something to give."""
    if step.finish_reason is FinishReason.FAULT:
        raise generation.fault or EngineFault("The engine gave no reason.")
    if begun:
        return
    if step.finish_reason is FinishReason.DEADLINE:
        raise DeadlineExceeded(
            "The time for this request passed before its first token. Try again, with a "
            "shorter prompt or a longer timeout."
        )
    if step.finish_reason is FinishReason.CANCELLED:
        raise NotReady(SHUT_DOWN)


class _Answer:
    """The steps of one prompt in, deltas out."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer()
        self._stops = StopStrings(stop)
        self._decoded = 0
        """Characters that the ids so far have become."""
        self._sent = 0
        """Characters that have left."""
        self._pending: deque[TokenLogprob] = deque()
        """Tokens of which no character has left."""
        self.tokens = 0
        self.ended = False

    def add(self, step: Step, usage: GenerationStats) -> TextDelta | None:
        """None where there is nothing to tell yet."""
        text = self._text(step)
        self._sent += len(text)
        finish: Finish | None = "stop" if self._stops.matched else _finish(step.finish_reason)
        self.ended = finish is not None
        tokens = self._tokens()
        if not (text or tokens or step.prompt_logprobs or finish):
            return None
        # The engine may be ahead of what is read here, by a step that nobody will see.
        usage = replace(usage, completion_tokens=self.tokens)
        return TextDelta(text, finish, usage, step.index, tokens, step.prompt_logprobs)

    def _text(self, step: Step) -> str:
        """What can leave, with this step."""
        text = ""
        if step.token_id is not None:
            self.tokens += 1
            if step.logprobs is not None:
                token = token_logprob(self._tokenizer, step.logprobs, self._decoded)
                self._pending.append(token)
            text = self._pass_on(self._detokenizer.push(step.token_id))
        if step.finish_reason is not None:
            text += self._pass_on(self._detokenizer.flush()) + self._stops.flush()
        return text

    def _pass_on(self, piece: str) -> str:
        self._decoded += len(piece)
        return self._stops.push(piece)

    def _tokens(self) -> tuple[TokenLogprob, ...]:
        """Those whose text has begun to leave; at an end without a stop string, all.

        So a token of a stop string is told only where part of it was text before.
        """
        everything = self.ended and not self._stops.matched
        tokens = []
        while self._pending and (everything or self._pending[0].offset < self._sent):
            tokens.append(self._pending.popleft())
        return tuple(tokens)


def _finish(reason: FinishReason | None) -> Finish | None:
    if reason is None:
        return None
    return "stop" if reason in {FinishReason.EOS, FinishReason.GRAMMAR} else "length"
