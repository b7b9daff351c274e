"""Completes prompts: turns the engine's token ids into the text and tool calls of the answers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from handlers.engine.params import FinishReason
from handlers.errors import (
    SHUT_DOWN,
    DeadlineExceeded,
    EngineFault,
    NotReady,
)
from handlers.text.logprobs import token_logprob
from handlers.text.stop_strings import StopStrings
from handlers.text.tool_parser import ToolCallDelta, ToolCallParser

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from handlers.artifact.dialect import ToolFormat
    from handlers.engine.engine import Engine, Generation
    from handlers.engine.params import GenerationStats, Logprobs, Prompt, Step
    from handlers.text.logprobs import ScoredToken
    from handlers.text.tokenizer import Tokenizer

Finish = Literal["stop", "length", "tool_calls"]
"""OpenAI's words: the model or a stop string ended the answer, it was cut, or it ends in calls."""


class Delta(msgspec.Struct, frozen=True):
    """The next piece of a choice. Only its last one has a finish_reason, and may be empty."""

    index: int
    """The position of the prompt that it answers."""
    text: str
    finish_reason: Finish | None
    stats: GenerationStats
    """Of the choice so far: `completion_tokens` counts those of held-back text too."""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    """They follow the text."""
    tokens: tuple[ScoredToken, ...] = ()
    """Those that begin in the text, where the request wants logprobs."""
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    """Of the prompt's ids, on the first delta, where the request wants them."""
    stop_string: str | None = None
    """The stop string that ended the choice, on its last delta."""
    reasoning: str = ""
    """The next piece of the thoughts, which come before the text."""


class Completer:
    """Completes prompts on one engine with one tokenizer."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer

    async def complete(
        self,
        prompts: Sequence[Prompt],
        stop: tuple[str, ...] = (),
        deadline: float | None = None,
        tool_format: ToolFormat | None = None,
    ) -> AsyncGenerator[Delta]:
        """Yields the answers, piece by piece as they come. Closing it early frees the slots.

        `deadline` is in seconds of time.monotonic(). `tool_format`: of the tool calls to parse.
        Raises what Engine.submit_all raises, DeadlineExceeded or NotReady when the time is over
        before any token, and EngineFault or GrammarTooComplex, also in the middle.
        """
        answers = [_Answer(self._tokenizer, stop, tool_format) for _ in prompts]
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
    """Raises the error of a submission that failed, or ended without any token.

    `begun`: whether any answer has a token.
    """
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
    """Turns the steps of one prompt into deltas."""

    def __init__(
        self, tokenizer: Tokenizer, stop: tuple[str, ...], tool_format: ToolFormat | None
    ) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer()
        self._parser = None if tool_format is None else ToolCallParser(tool_format)
        self._called = False
        """Whether it has a tool call."""
        self._stops = StopStrings(stop) if stop else None
        self._decoded = 0
        """Characters that the ids so far have become."""
        self._sent = 0
        """Characters that have left."""
        self._pending: deque[ScoredToken] = deque()
        """Tokens of which no character has left."""
        self.tokens = 0
        self.ended = False

    def add(self, step: Step, stats: GenerationStats) -> Delta | None:
        """Returns the next delta, None where nothing is certain yet."""
        text = self._text(step)
        self._sent += len(text)
        finish: Finish | None = "stop" if self._stop_string else _finish(step.finish_reason)
        self.ended = finish is not None
        tokens = self._tokens()
        calls: list[ToolCallDelta] = []
        if self._parser is not None:
            text, calls = self._parser.push(text)
            self._called = self._called or bool(calls)
            if finish is not None:
                text += self._parser.flush()
                finish = self._finish_of_calls(self._parser, finish)
        if not (text or calls or tokens or step.prompt_logprobs or finish):
            return None
        # The engine may be ahead of what is read here, by a step that nobody will see.
        stats = replace(stats, completion_tokens=self.tokens)
        return Delta(
            index=step.index,
            text=text,
            finish_reason=finish,
            stats=stats,
            tool_calls=tuple(calls),
            tokens=tokens,
            prompt_logprobs=step.prompt_logprobs,
            stop_string=self._stop_string,
        )

    def _finish_of_calls(self, parser: ToolCallParser, finish: Finish) -> Finish:
        """Agents run calls where an answer ends with "tool_calls", so no call that was cut may."""
        if finish != "stop":
            return finish
        if parser.inside_call:
            return "length"
        return "tool_calls" if self._called else "stop"

    def _text(self, step: Step) -> str:
        """Returns the text that is certain with this step, stop strings left out."""
        text = ""
        if step.token_id is not None:
            self.tokens += 1
            if step.logprobs is not None:
                token = token_logprob(self._tokenizer, step.logprobs, self._decoded)
                self._pending.append(token)
            text = self._pass_on(self._detokenizer.push(step.token_id))
        if step.finish_reason is not None:
            text += self._pass_on(self._detokenizer.flush())
            text += self._stops.flush() if self._stops else ""
        return text

    def _pass_on(self, piece: str) -> str:
        self._decoded += len(piece)
        return self._stops.push(piece) if self._stops else piece

    @property
    def _stop_string(self) -> str | None:
        return None if self._stops is None else self._stops.matched

    def _tokens(self) -> tuple[ScoredToken, ...]:
        """Returns the tokens whose text has begun to leave; at an end without a stop string, all.

        So a token of a stop string is returned only where part of it was text before.
        """
        everything = self.ended and not self._stop_string
        tokens = []
        while self._pending and (everything or self._pending[0].offset < self._sent):
            tokens.append(self._pending.popleft())
        return tuple(tokens)


def _finish(reason: FinishReason | None) -> Finish | None:
    if reason is None:
        return None
    return "stop" if reason in {FinishReason.EOS, FinishReason.GRAMMAR} else "length"
