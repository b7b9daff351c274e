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

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from handlers.engine.engine import Engine, Generation
    from handlers.engine.params import GenerationStats, Logprobs, Prompt, Step
    from handlers.text.answer_format import AnswerFormat, ToolCallDelta
    from handlers.text.answer_parser import AnswerParser
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
    """They follow the text, but for the rest of an earlier call: `calls_around_text`."""
    tokens: tuple[ScoredToken, ...] = ()
    """Those that begin in the text, where the request wants logprobs."""
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    """Of the prompt's ids, on the first delta, where the request wants them."""
    stop_string: str | None = None
    """The stop string that ended the choice, on its last delta."""
    reasoning: str = ""
    """The next piece of the thoughts, which come before the text."""

    def calls_around_text(self) -> tuple[Sequence[ToolCallDelta], Sequence[ToolCallDelta]]:
        """Returns the rest of a call that an earlier delta began, and the calls after the text.

        Text may follow the rest: a stop string may hold back the end of a call and text after it.
        """
        calls = self.tool_calls
        rest = next((at for at, each in enumerate(calls) if each.id is not None), len(calls))
        return calls[:rest], calls[rest:]


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
        answer_format: AnswerFormat | None = None,
    ) -> AsyncGenerator[Delta]:
        """Yields the answers, piece by piece as they come. Closing it early frees the slots.

        `deadline` is in seconds of time.monotonic(). Without an `answer_format` all is text.
        Raises what Engine.submit_all raises, DeadlineExceeded or NotReady when the time is over
        before any token, and EngineFault or GrammarTooComplex, also in the middle.
        """
        answers = [_Answer(self._tokenizer, stop, answer_format) for _ in prompts]
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
        self, tokenizer: Tokenizer, stop: tuple[str, ...], answer_format: AnswerFormat | None
    ) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer()
        self._parser = _parser(answer_format, stop)
        self._stops = StopStrings(stop) if stop and self._parser is None else None
        self._decoded = 0
        """Characters that the ids so far have become."""
        self._sent = 0
        """Characters of the text that have left."""
        self._pending: deque[ScoredToken] = deque()
        """Tokens of which no character has left."""
        self.tokens = 0
        self._reasoning_tokens = 0
        self.ended = False

    def add(self, step: Step, stats: GenerationStats) -> Delta | None:
        """Returns the next delta, None where nothing is certain yet."""
        reasoning, text, calls, stop_string = self._read(step)
        finish: Finish | None = "stop" if stop_string else _finish(step.finish_reason)
        if self._parser is not None and finish == "stop":
            finish = _finish_of_calls(self._parser)
        self.ended = finish is not None
        tokens = self._tokens(everything=self.ended and not stop_string)
        if not (text or reasoning or calls or tokens or step.prompt_logprobs or finish):
            return None
        return Delta(
            index=step.index,
            text=text,
            finish_reason=finish,
            stats=self._counted(stats),
            tool_calls=tuple(calls),
            tokens=tokens,
            prompt_logprobs=step.prompt_logprobs,
            stop_string=stop_string,
            reasoning=reasoning,
        )

    def _counted(self, stats: GenerationStats) -> GenerationStats:
        """Returns the counts of what was read: the engine may be ahead, by a step unseen."""
        return replace(
            stats, completion_tokens=self.tokens, reasoning_tokens=self._reasoning_tokens
        )

    def _read(self, step: Step) -> tuple[str, str, Sequence[ToolCallDelta], str | None]:
        """Returns the thoughts, text and calls that are certain with this step.

        The stop string that ends the answer is the last of the four.
        """
        piece = self._decode(step)
        last = step.finish_reason is not None
        if self._parser is not None:
            return self._parse(self._parser, piece, step.finish_reason)
        stop_string = None
        if self._stops is not None:
            piece = self._stops.push(piece)
            piece += self._stops.flush() if last else ""
            stop_string = self._stops.matched
        self._sent += len(piece)
        return "", piece, (), stop_string

    def _parse(
        self, parser: AnswerParser, piece: str, reason: FinishReason | None
    ) -> tuple[str, str, Sequence[ToolCallDelta], str | None]:
        over = parser.thoughts_over
        reasoning, text, calls = parser.push(piece)
        if reason or parser.stop_string:
            rest = parser.flush(whole=_finish(reason) == "stop")
            reasoning, text = reasoning + rest.reasoning, text + rest.text
            calls = [*calls, *rest.calls]
        if not over and parser.has_thoughts:
            self._reasoning_tokens = self.tokens
        self._sent = parser.text_start + parser.passed
        return reasoning, text, calls, parser.stop_string

    def _decode(self, step: Step) -> str:
        """Returns the text that the ids so far have become, as far as it is whole."""
        text = ""
        if step.token_id is not None:
            self.tokens += 1
            if step.logprobs is not None:
                token = token_logprob(self._tokenizer, step.logprobs, self._decoded)
                self._pending.append(token)
            text = self._detokenizer.push(step.token_id)
        if step.finish_reason is not None:
            text += self._detokenizer.flush()
        self._decoded += len(text)
        return text

    def _tokens(self, everything: bool) -> tuple[ScoredToken, ...]:
        """Returns the tokens whose text has begun to leave; at an end without a stop string, all.

        So a token of a stop string is returned only where part of it was text before. Those of
        thoughts and of marks are left out.
        """
        tokens = []
        while self._pending and (everything or self._pending[0].offset < self._sent):
            tokens.append(self._pending.popleft())
        return tuple(tokens if self._parser is None else _of_the_text(tokens, self._parser))


def _parser(answer_format: AnswerFormat | None, stop: tuple[str, ...]) -> AnswerParser | None:
    """Returns None for an answer of text alone."""
    if answer_format is None or answer_format.is_plain:
        return None
    # A request that needs it imports it.
    from handlers.text.answer_parser import AnswerParser

    return AnswerParser(answer_format, stop)


def _of_the_text(tokens: list[ScoredToken], parser: AnswerParser) -> list[ScoredToken]:
    """Returns the tokens that begin in the text, with their places in it."""
    start, end = parser.text_start, parser.text_end
    return [
        replace(token, offset=token.offset - start)
        for token in tokens
        if start <= token.offset and (end is None or token.offset < end)
    ]


def _finish_of_calls(parser: AnswerParser) -> Finish:
    """Agents run calls where an answer ends with "tool_calls", so no call that was cut may."""
    if parser.inside_call:
        return "length"
    return "tool_calls" if parser.called else "stop"


def _finish(reason: FinishReason | None) -> Finish | None:
    if reason is None:
        return None
    return "stop" if reason in {FinishReason.EOS, FinishReason.GRAMMAR} else "length"
