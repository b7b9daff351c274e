"""Makes the events of an answer of /v1/messages, and the content blocks that they build up.

A whole answer is made of the same events as a streamed one, so both have the same blocks.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from handlers.api.anthropic_errors import AnthropicError, anthropic_error
from handlers.api.endpoints.messages_output import (
    SIGNATURE,
    AnswerBlock,
    AnswerMessage,
    MessagesUsage,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    stop_reason,
)
from handlers.api.generation import StreamSerializer
from handlers.api.http import TokenUsage, sse_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from handlers.api.generation import Events, ResponseMetadata
    from handlers.engine.params import GenerationStats
    from handlers.text.answer_format import ToolCallDelta
    from handlers.text.completion import Delta


class EventDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The next piece of a block, which has a `type`, or the end of the message, which has none."""

    type: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET
    stop_reason: StopReason | UnsetType | None = UNSET
    stop_sequence: str | UnsetType | None = UNSET


class MessagesEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a streamed message. Its other members depend on its `type`."""

    type: str
    message: AnswerMessage | UnsetType = UNSET
    index: int | UnsetType = UNSET
    content_block: AnswerBlock | UnsetType = UNSET
    delta: EventDelta | UnsetType = UNSET
    usage: MessagesUsage | UnsetType = UNSET


class MessagesSerializer(StreamSerializer):
    """Makes the events of one message. At most its last block is open."""

    end = b""
    """Nothing, not even [DONE]: message_stop says that it is the last event."""

    def __init__(self, metadata: ResponseMetadata, request_id: str) -> None:
        self._message = AnswerMessage(
            id=f"msg_{metadata.key}",
            type="message",
            role="assistant",
            model=metadata.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=MessagesUsage.of(TokenUsage(0)),
        )
        self._request_id = request_id
        self._begun = False
        self._blocks: list[AnswerBlock] = []
        """Those that have begun, the last of them without its content while it is open."""
        self._is_open = False
        self._pieces: list[str] = []
        """The content of the open block."""

    def start(self) -> Events:
        """Returns nothing: the first event has the prompt's tokens, which come with a delta."""
        return []

    def delta(self, delta: Delta) -> Events:
        """Returns the events of the blocks, the first time after that of the message."""
        events: Events = [] if self._begun else [*self._begin(delta.stats)]
        if delta.reasoning:
            events += self._open_if_other(ThinkingBlock())
            piece = EventDelta(type="thinking_delta", thinking=delta.reasoning)
            events.append(self._grow(piece, delta.reasoning))
        rest, calls = delta.calls_around_text()
        events += self._call_events(rest)
        if delta.text:
            events += self._open_if_other(TextBlock())
            events.append(self._grow(EventDelta(type="text_delta", text=delta.text), delta.text))
        events += self._call_events(calls)
        if delta.finish_reason:
            events += self._close()
            reason = stop_reason(delta)
            self._message = replace(
                self._message,
                usage=MessagesUsage.of(delta.stats),
                content=self._blocks,
                stop_reason=reason,
                stop_sequence=delta.stop_string if reason == "stop_sequence" else None,
            )
        return events

    def finish(self, usage: TokenUsage) -> Events:
        """Returns the last two events: why the message ended, and that it did."""
        whole = self.whole()
        end = EventDelta(stop_reason=whole.stop_reason, stop_sequence=whole.stop_sequence)
        return [
            MessagesEvent(type="message_delta", delta=end, usage=MessagesUsage.of(usage)),
            MessagesEvent(type="message_stop"),
        ]

    def error(self, error: BaseException) -> Events:
        """Returns the event that ends a stream which breaks."""
        return [anthropic_error(error, self._request_id)]

    def encode_event(self, event: object) -> bytes:
        """Encodes an event with its name, which is its type."""
        name = event.type if isinstance(event, MessagesEvent | AnthropicError) else None
        return sse_event(event, name)

    def whole(self) -> AnswerMessage:
        """Returns the body, once the last delta is in."""
        return self._message

    def _begin(self, stats: GenerationStats) -> Iterator[MessagesEvent]:
        self._begun = True
        begun = replace(self._message, usage=MessagesUsage.of(stats))
        yield MessagesEvent(type="message_start", message=begun)
        yield MessagesEvent(type="ping")

    def _call_events(self, pieces: Iterable[ToolCallDelta]) -> Iterator[MessagesEvent]:
        for call in pieces:
            if call.id is not None:
                yield from self._open(ToolUseBlock(id=call.id, name=call.name or ""))
            if call.arguments:
                piece = EventDelta(type="input_json_delta", partial_json=call.arguments)
                yield self._grow(piece, call.arguments)

    def _open_if_other(self, block: AnswerBlock) -> Iterator[MessagesEvent]:
        """Opens a block, unless one of its type is open."""
        if not (self._is_open and isinstance(self._blocks[-1], type(block))):
            yield from self._open(block)

    def _open(self, block: AnswerBlock) -> Iterator[MessagesEvent]:
        yield from self._close()
        self._blocks.append(block)
        self._is_open, self._pieces = True, []
        yield self._event("start", content_block=block)

    def _grow(self, piece: EventDelta, content: str) -> MessagesEvent:
        self._pieces.append(content)
        return self._event("delta", delta=piece)

    def _close(self) -> Iterator[MessagesEvent]:
        if self._is_open:
            if isinstance(self._blocks[-1], ThinkingBlock):
                signed = EventDelta(type="signature_delta", signature=SIGNATURE)
                yield self._event("delta", delta=signed)
            self._is_open = False
            self._blocks[-1] = self._blocks[-1].with_content("".join(self._pieces))
            yield self._event("stop")

    def _event(
        self,
        kind: str,
        content_block: AnswerBlock | UnsetType = UNSET,
        delta: EventDelta | UnsetType = UNSET,
    ) -> MessagesEvent:
        return MessagesEvent(
            type=f"content_block_{kind}",
            index=len(self._blocks) - 1,
            content_block=content_block,
            delta=delta,
        )
