"""The body of an answer of /v1/messages and of its content blocks, as Anthropic defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.api.schemas import ResponseSchema

if TYPE_CHECKING:
    from handlers.api.http import TokenUsage
    from handlers.engine.params import GenerationStats
    from handlers.text.completion import Delta

SIGNATURE = "unsigned"
"""The signature of every thought: clients send it back, and some leave out what has none."""

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class TextBlock(ResponseSchema, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """A text that the model writes."""

    text: str = ""

    def with_content(self, content: str) -> TextBlock:
        """Returns the block with its text."""
        return TextBlock(text=content)


class ThinkingBlock(ResponseSchema, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    """The thoughts before an answer. At Anthropic the signature says that they are its model's."""

    thinking: str = ""
    signature: str = ""

    def with_content(self, content: str) -> ThinkingBlock:
        """Returns the block with its thoughts."""
        return ThinkingBlock(thinking=content, signature=SIGNATURE)


class ToolUseBlock(ResponseSchema, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    """A tool call that the model asks for. `input` is its arguments."""

    id: str
    name: str
    input: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def with_content(self, content: str) -> ToolUseBlock:
        """Returns the block with its arguments, none where their JSON was cut."""
        try:
            arguments = msgspec.json.decode(content or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            arguments = {}
        return ToolUseBlock(id=self.id, name=self.name, input=arguments)


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock


class MessagesOutputDetails(ResponseSchema, frozen=True, kw_only=True):
    """`thinking_tokens` of the answer are thoughts."""

    thinking_tokens: int


class MessagesUsage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of the prompt and of the answer.

    At Anthropic `input_tokens` are those that no cache had: the three of the prompt add up to it.
    """

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: MessagesOutputDetails

    @classmethod
    def of(cls, tokens: GenerationStats | TokenUsage) -> MessagesUsage:
        """Returns the counts as Anthropic has them. Writing to the cache costs nothing."""
        return cls(
            input_tokens=tokens.prompt_tokens - tokens.cached_tokens,
            cache_creation_input_tokens=0,
            cache_read_input_tokens=tokens.cached_tokens,
            output_tokens=tokens.completion_tokens,
            output_tokens_details=MessagesOutputDetails(thinking_tokens=tokens.reasoning_tokens),
        )


class AnswerMessage(ResponseSchema, frozen=True, kw_only=True):
    """The assistant's turn, or its beginning as a stream sends it."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessagesUsage


class MessageTokens(ResponseSchema, frozen=True, kw_only=True):
    """The count of a prompt's tokens."""

    input_tokens: int


def stop_reason(last: Delta) -> StopReason:
    """Returns why an answer ended, of its last delta.

    Agents run calls where it is "tool_use", so that takes precedence over a stop string.
    """
    if last.finish_reason == "tool_calls":
        return "tool_use"
    if last.stop_string is not None:
        return "stop_sequence"
    return "max_tokens" if last.finish_reason == "length" else "end_turn"
