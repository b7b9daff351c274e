"""A completion's answers in OpenAI's shape, which is the same whole and in chunks.

Knows deltas and no engine. Called by endpoint.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from handlers.api.answer import StreamShape
from handlers.api.logprob_shapes import legacy_logprobs
from handlers.text.token_text import read_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.api.answer import Bodies, Call, Stamp
    from handlers.api.deltas import Answer, Delta, Finish
    from handlers.engine.sequence import Logprobs, Usage
    from handlers.text.token_text import Token
    from handlers.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompts, which stand before the answers where they are asked for."""

    tokenizer: Tokenizer
    call: Call
    texts: Sequence[str]
    """Of the prompts, each of which has `call.choices_each` choices."""

    def text(self, index: int) -> str:
        """What stands before a choice's answer."""
        return self.texts[index // self.call.choices_each]

    def tokens(self, index: int, logprobs: Sequence[Logprobs | None]) -> tuple[Token, ...]:
        """The tokens of that text."""
        return read_prompt(self.tokenizer, self.text(index), self.call.prompts[index].ids, logprobs)


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

    def whole(self, answers: Sequence[Answer]) -> dict[str, object]:
        """The body of an answer that is not streamed."""
        choices = [
            self._choice(index, answer, answer.finish_reason, first=True)
            for index, answer in enumerate(answers)
        ]
        usage = self.call.usage([answer.usage for answer in answers])
        return self.stamp.body("text_completion", choices) | {"usage": usage}

    def opening(self) -> Bodies:
        """A text has no role to announce."""
        return []

    def delta(self, delta: Delta) -> Bodies:
        """The text and its finish_reason in one chunk."""
        first = delta.index not in self._begun
        self._begun.add(delta.index)
        choice = self._choice(delta.index, delta, delta.finish_reason, first=first)
        body = self.stamp.body("text_completion", [choice])
        return [body | {"usage": None} if self.include_usage else body]

    def closing(self, usages: Sequence[Usage]) -> Bodies:
        """The usage, where it is asked for."""
        if not self.include_usage:
            return []
        return [self.stamp.body("text_completion", []) | {"usage": self.call.usage(usages)}]

    def _choice(
        self, index: int, answer: Answer | Delta, finish_reason: Finish | None, *, first: bool
    ) -> dict[str, object]:
        echoed = self.echo.text(index) if self.echo else ""
        logprobs = self._logprobs(index, answer, len(echoed)) if self.wants_logprobs else None
        return {
            "index": index,
            "text": echoed + answer.text if first else answer.text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _logprobs(self, index: int, answer: Answer | Delta, echoed: int) -> dict[str, list[object]]:
        """`echoed`: characters of the prompt that stand before the answer."""
        own = legacy_logprobs(answer.tokens, echoed)
        if self.echo is None or answer.prompt_logprobs is None:
            return own
        prompt = legacy_logprobs(self.echo.tokens(index, answer.prompt_logprobs))
        return {name: [*prompt[name], *own[name]] for name in own}
