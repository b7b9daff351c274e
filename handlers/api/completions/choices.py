"""A completion's answers in OpenAI's shape, which is the same whole and in chunks.

Knows deltas and no engine. Called by endpoint.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from handlers.api.answer import StreamShape
from handlers.api.logprob_shapes import legacy_logprobs
from handlers.api.usage import usage_body
from handlers.text.logprobs import prompt_logprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.api.answer import Bodies, Call, Stamp
    from handlers.api.deltas import Answer, Delta, Finish
    from handlers.engine.params import GenerationStats
    from handlers.text.tokenizer import Tokenizer


Logprobs = dict[str, list[object]]
"""OpenAI's older shape."""


class Echo(msgspec.Struct, frozen=True):
    """The prompts, which stand before the answers where they are asked for."""

    tokenizer: Tokenizer
    call: Call
    texts: Sequence[str]
    """Of the prompts, each of which has `call.choices_each` choices."""
    _told: dict[int, Logprobs] = msgspec.field(default_factory=dict)
    """Of each prompt, by the index of its first choice."""

    def first(self, index: int) -> int:
        """The first choice of the same prompt."""
        return index - index % self.call.choices_each

    def text(self, index: int) -> str:
        """What stands before a choice's answer."""
        return self.texts[index // self.call.choices_each]

    def logprobs(self, index: int, answer: Answer | Delta) -> Logprobs | None:
        """Of that text, once the first choice has brought them: made once for all choices."""
        if answer.prompt_logprobs is not None:
            ids, text = self.call.prompts[index].ids, self.text(index)
            tokens = prompt_logprobs(self.tokenizer, text, ids, answer.prompt_logprobs)
            self._told[index] = legacy_logprobs(tokens)
        return self._told.get(self.first(index))


@dataclass(frozen=True, slots=True)
class TextShape(StreamShape):
    """The bodies of one request's answers."""

    stamp: Stamp
    call: Call
    echo: Echo | None
    wants_logprobs: bool
    include_usage: bool
    _begun: set[int] = field(default_factory=set)
    """Choices of which a chunk has left."""
    _held: dict[int, list[Delta]] = field(default_factory=dict)
    """What waits for a prompt's logprobs, by the index of the choice that brings them."""

    def whole(self, answers: Sequence[Answer]) -> dict[str, object]:
        """The body of an answer that is not streamed."""
        choices = [
            self._choice(index, answer, answer.finish_reason, first=True)
            for index, answer in enumerate(answers)
        ]
        usage = usage_body(self.call.usage([answer.usage for answer in answers]))
        return self.stamp.body("text_completion", choices) | {"usage": usage}

    def opening(self) -> Bodies:
        """A text has no role to announce."""
        return []

    def delta(self, delta: Delta) -> Bodies:
        """The text and its finish_reason in one chunk.

        A prompt's logprobs come with its first choice: the others' chunks wait for that one.
        """
        if self.echo and self.wants_logprobs:
            bringer = self.echo.first(delta.index)
            if delta.index != bringer and bringer not in self._begun:
                self._held.setdefault(bringer, []).append(delta)
                return []
        return [self._chunk(each) for each in (delta, *self._held.pop(delta.index, ()))]

    def closing(self, usages: Sequence[GenerationStats]) -> Bodies:
        """The usage, where it is asked for."""
        if not self.include_usage:
            return []
        usage = {"usage": usage_body(self.call.usage(usages))}
        return [self.stamp.body("text_completion", []) | usage]

    def _chunk(self, delta: Delta) -> dict[str, object]:
        first = delta.index not in self._begun
        self._begun.add(delta.index)
        choice = self._choice(delta.index, delta, delta.finish_reason, first=first)
        body = self.stamp.body("text_completion", [choice])
        return body | {"usage": None} if self.include_usage else body

    def _choice(
        self, index: int, answer: Answer | Delta, finish_reason: Finish | None, *, first: bool
    ) -> dict[str, object]:
        echoed = self.echo.text(index) if self.echo else ""
        logprobs = None
        if self.wants_logprobs:
            logprobs = legacy_logprobs(answer.tokens, len(echoed))
            before = self.echo.logprobs(index, answer) if self.echo and first else None
            if before is not None:
                logprobs = {name: [*before[name], *logprobs[name]] for name in before}
        return {
            "index": index,
            "text": echoed + answer.text if first else answer.text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
