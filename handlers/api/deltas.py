"""What an answer is made of, piece by piece or whole, before an endpoint gives it its shape.

Knows no endpoint. answer.py makes these; chat, completions and responses write them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.engine.params import GenerationStats, Logprobs
    from handlers.text.completion import TextDelta
    from handlers.text.logprobs import TokenLogprob

Finish = Literal["stop", "length", "tool_calls"]
"""OpenAI's words."""


class CallDelta(msgspec.Struct, frozen=True):
    """The start of a tool call, which has `id` and `name`, or more of its arguments."""

    place: int
    """Which of the answer's calls it belongs to, from 0."""
    arguments: str = ""
    """The next piece of their JSON."""
    id: str | None = None
    name: str | None = None


class Delta(msgspec.Struct, frozen=True):
    """The next piece of a choice. Only its last one has a finish_reason, and may be empty."""

    index: int
    """Which choice."""
    text: str
    calls: tuple[CallDelta, ...]
    finish_reason: Finish | None
    usage: GenerationStats
    """Of the choice so far."""
    tokens: tuple[TokenLogprob, ...] = ()
    """Where logprobs are asked for: the tokens that have come with it."""
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    """On the choice's first delta, where they are asked for."""


class ToolCall(msgspec.Struct, frozen=True):
    """A whole call."""

    id: str
    name: str
    arguments: str
    """JSON, unless the answer was cut."""


class Answer(msgspec.Struct, frozen=True):
    """A whole choice."""

    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: Finish
    usage: GenerationStats
    tokens: tuple[TokenLogprob, ...]
    prompt_logprobs: tuple[Logprobs | None, ...] | None


def plain(delta: TextDelta) -> Delta:
    """The delta of an answer in which nothing but text is looked for."""
    return Delta(
        delta.index,
        delta.text,
        (),
        delta.finish_reason,
        delta.usage,
        delta.tokens,
        delta.prompt_logprobs,
    )


def joined(deltas: Sequence[Delta]) -> Answer:
    """All deltas of one choice as one."""
    last = deltas[-1]
    return Answer(
        text="".join(delta.text for delta in deltas),
        calls=_joined_calls(call for delta in deltas for call in delta.calls),
        finish_reason=last.finish_reason or "length",
        usage=last.usage,
        tokens=tuple(token for delta in deltas for token in delta.tokens),
        prompt_logprobs=deltas[0].prompt_logprobs,
    )


def _joined_calls(pieces: Iterable[CallDelta]) -> tuple[ToolCall, ...]:
    starts: dict[int, CallDelta] = {}
    arguments: dict[int, str] = {}
    for piece in pieces:
        starts.setdefault(piece.place, piece)
        arguments[piece.place] = arguments.get(piece.place, "") + piece.arguments
    return tuple(
        ToolCall(start.id or "", start.name or "", arguments[place])
        for place, start in starts.items()
    )
