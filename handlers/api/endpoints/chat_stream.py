"""The chunks of a streamed chat.

https://platform.openai.com/docs/api-reference/chat/streaming
"""

from __future__ import annotations

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


class ChatSerializer(StreamSerializer):
    """Makes OpenAI's chunks: role, thoughts, text, calls, finish_reason, and usage on request."""

    def __init__(
        self,
        metadata: ResponseMetadata,
        n: int,
        *,
        include_usage: bool,
        wants_logprobs: bool,
        must_call: bool,
        custom: frozenset[str],
    ) -> None:
        """`n`: how many choices there are. `custom`: the names of the custom tools.

        `must_call`: whether an answer has to be a call; then it has no content.
        """
        self._metadata = metadata
        self._n = n
        self._include_usage = include_usage
        self._wants_logprobs = wants_logprobs
        self._must_call = must_call
        self._custom = custom
        self._inputs: dict[tuple[int, int], InputReader] = {}
        """The readers of custom calls, by the indices of the choice and of the call."""

    def start(self) -> Events:
        role = ChatDelta(role="assistant", content=None if self._must_call else "")
        return [self._chunk(index, role) for index in range(self._n)]

    def delta(self, delta: Delta) -> Events:
        chunks: Events = []
        # Never beside the text: clients look for one of the two in a chunk.
        if delta.reasoning:
            thoughts = ChatDelta(reasoning_content=delta.reasoning, reasoning=delta.reasoning)
            chunks.append(self._chunk(delta.index, thoughts))
        if delta.text or delta.tokens:
            logprobs = ChatLogprobs.of(delta.tokens) if self._wants_logprobs else None
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
        if call.name in self._custom and call.id is not None:
            self._inputs[key] = InputReader()
            custom = ChatCustomDelta(
                name=call.name or "", input=self._inputs[key].push(call.arguments)
            )
            return ChatToolCallDelta(index=call.index, id=call.id, type="custom", custom=custom)
        if key not in self._inputs:
            return ChatToolCallDelta.of(call)
        text = self._inputs[key].push(call.arguments)
        custom = ChatCustomDelta(input=text)
        return ChatToolCallDelta(index=call.index, custom=custom) if text else None

    def finish(self, usage: TokenUsage) -> Events:
        return [self._body([], Usage.of(usage))] if self._include_usage else []

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
        return self._body([choice], None if self._include_usage else UNSET)

    def _body(
        self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=f"chatcmpl-{self._metadata.key}",
            object="chat.completion.chunk",
            created=self._metadata.created,
            model=self._metadata.model,
            system_fingerprint=self._metadata.system_fingerprint,
            choices=choices,
            usage=usage,
        )
