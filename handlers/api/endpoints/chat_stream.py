"""The chunks of a streamed chat.

https://platform.openai.com/docs/api-reference/chat/streaming
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from handlers.api.custom_tools import InputReader
from handlers.api.endpoints.chat_output import (
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCustomDelta,
    ChatDelta,
    ChatLogprobs,
    ChatToolCallDelta,
)
from handlers.api.generation import ResponseMetadata, StreamSerializer, Usage

if TYPE_CHECKING:
    from handlers.api.generation import Events
    from handlers.api.http import TokenUsage
    from handlers.text.answer_format import ToolCallDelta
    from handlers.text.completion import Delta, Finish


@dataclass(frozen=True, slots=True)
class ChatSerializer(StreamSerializer):
    """Makes OpenAI's chunks: role, thoughts, text, calls, finish_reason, and usage on request."""

    metadata: ResponseMetadata
    n: int
    """How many choices there are."""
    include_usage: bool
    wants_logprobs: bool
    must_call: bool
    """Whether an answer has to be a call: then it has no content."""
    custom: frozenset[str] = frozenset()
    """The names of the custom tools."""
    inputs: dict[tuple[int, int], InputReader] = field(default_factory=dict)
    """The readers of custom calls, by the indices of the choice and of the call."""

    def start(self) -> Events:
        role = ChatDelta(role="assistant", content=None if self.must_call else "")
        return [self._chunk(index, role) for index in range(self.n)]

    def delta(self, delta: Delta) -> Events:
        chunks: Events = []
        # Never beside the text: clients look for one of the two in a chunk.
        if delta.reasoning:
            thoughts = ChatDelta(reasoning_content=delta.reasoning, reasoning=delta.reasoning)
            chunks.append(self._chunk(delta.index, thoughts))
        if delta.text or delta.tokens:
            logprobs = ChatLogprobs.of(delta.tokens) if self.wants_logprobs else None
            chunks.append(self._chunk(delta.index, ChatDelta(content=delta.text), logprobs))
        # One in each chunk: OpenAI's client joins calls by their index only across chunks.
        for call in delta.tool_calls:
            piece = self._call(delta.index, call)
            if piece is not None:
                chunks.append(self._chunk(delta.index, ChatDelta(tool_calls=[piece])))
        if delta.finish_reason:
            chunks.append(self._chunk(delta.index, ChatDelta(), finish_reason=delta.finish_reason))
        return chunks

    def _call(self, choice: int, call: ToolCallDelta) -> ChatToolCallDelta | None:
        """Returns a piece of a call, None for JSON around a custom tool's input."""
        key = (choice, call.index)
        if call.name in self.custom and call.id is not None:
            self.inputs[key] = InputReader()
            custom = ChatCustomDelta(
                name=call.name or "", input=self.inputs[key].push(call.arguments)
            )
            return ChatToolCallDelta(index=call.index, id=call.id, type="custom", custom=custom)
        if key not in self.inputs:
            return ChatToolCallDelta.of(call)
        text = self.inputs[key].push(call.arguments)
        custom = ChatCustomDelta(input=text)
        return ChatToolCallDelta(index=call.index, custom=custom) if text else None

    def finish(self, usage: TokenUsage) -> Events:
        return [self._body([], Usage.of(usage))] if self.include_usage else []

    def _chunk(
        self,
        index: int,
        delta: ChatDelta,
        logprobs: ChatLogprobs | None = None,
        finish_reason: Finish | None = None,
    ) -> ChatCompletionChunk:
        choice = ChatChunkChoice(
            index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason
        )
        return self._body([choice], None if self.include_usage else UNSET)

    def _body(
        self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=f"chatcmpl-{self.metadata.key}",
            object="chat.completion.chunk",
            created=self.metadata.created,
            model=self.metadata.model,
            system_fingerprint=self.metadata.system_fingerprint,
            choices=choices,
            usage=usage,
        )
