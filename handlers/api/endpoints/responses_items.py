"""The output items of a response as they grow, and the events that they give.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from handlers.api.custom_tools import InputReader
from handlers.api.endpoints.responses_output import (
    DescribedItem,
    DescribedPart,
    OutputCall,
    OutputCustomCall,
    OutputMessage,
    OutputPart,
    OutputReasoning,
    ReasoningPart,
    ResponseObject,
)
from handlers.api.logprobs import TokenLogprob, token_logprobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from handlers.api.endpoints.responses_output import ItemStatus, OutputItem
    from handlers.text.answer_format import ToolCallDelta
    from handlers.text.completion import Delta


class ResponseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a streamed response. What else it has depends on its `type`."""

    type: str
    response: ResponseObject | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    item: DescribedItem | UnsetType = UNSET
    part: DescribedPart | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    input: str | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET
    sequence_number: int


class EventFactory:
    """Makes events and numbers them, so they are made in the order in which they are sent."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def make(self, kind: str, **members: Any) -> ResponseEvent:
        """Returns the next event. `kind`: its type, without the word `response`."""
        number = next(self._numbers)
        return ResponseEvent(type=f"response.{kind}", **members, sequence_number=number)


class GrowingText:
    """An item of one part, which is a text, as far as it has come."""

    def __init__(self, identity: str, index: int, events: EventFactory) -> None:
        self._id = identity
        self._index = index
        self._events = events
        self._text = ""

    def start(self) -> Iterator[ResponseEvent]:
        """Yields the events after the item's own."""
        yield self._event("content_part.added", part=self._part())

    def _part(self) -> ReasoningPart | OutputPart:
        raise NotImplementedError

    def _event(self, kind: str, **members: Any) -> ResponseEvent:
        return self._events.make(
            kind, item_id=self._id, output_index=self._index, content_index=0, **members
        )


class GrowingThoughts(GrowingText):
    """The model's thoughts."""

    def item(self, status: ItemStatus) -> OutputReasoning:
        """Returns the item as it is now."""
        content = [] if status == "in_progress" else [self._part()]
        return OutputReasoning(
            id=self._id, type="reasoning", status=status, summary=[], content=content
        )

    def grow(self, thoughts: str) -> Iterator[ResponseEvent]:
        """Appends thoughts and yields their event."""
        self._text += thoughts
        yield self._event("reasoning_text.delta", delta=thoughts)

    def finish(self) -> Iterator[ResponseEvent]:
        """Yields the events before the item's last one."""
        yield self._event("reasoning_text.done", text=self._text)
        yield self._event("content_part.done", part=self._part())

    def _part(self) -> ReasoningPart:
        return ReasoningPart(type="reasoning_text", text=self._text)


class GrowingMessage(GrowingText):
    """The model's text."""

    def __init__(self, identity: str, index: int, events: EventFactory) -> None:
        super().__init__(identity, index, events)
        self._logprobs: list[TokenLogprob] = []

    def item(self, status: ItemStatus) -> OutputMessage:
        """Returns the item as it is now."""
        content = [] if status == "in_progress" else [self._part()]
        return OutputMessage(
            id=self._id, type="message", status=status, role="assistant", content=content
        )

    def grow(self, delta: Delta) -> Iterator[ResponseEvent]:
        """Appends text and yields its event."""
        logprobs = token_logprobs(delta.tokens)
        self._text += delta.text
        self._logprobs += logprobs
        yield self._event("output_text.delta", delta=delta.text, logprobs=logprobs)

    def finish(self) -> Iterator[ResponseEvent]:
        """Yields the events before the item's last one."""
        yield self._event("output_text.done", text=self._text, logprobs=self._logprobs)
        yield self._event("content_part.done", part=self._part())

    def _part(self) -> OutputPart:
        return OutputPart(
            type="output_text", text=self._text, annotations=[], logprobs=list(self._logprobs)
        )


class _GrowingToolCall:
    """Base of the calls of functions and of custom tools, as far as they have come."""

    kind: ClassVar[str]
    """The type of the call's events, up to its last word."""

    def __init__(
        self, identity: str, index: int, events: EventFactory, call: ToolCallDelta
    ) -> None:
        self._id = identity
        self._index = index
        self._events = events
        self._call_id = call.id or ""
        self._name = call.name or ""
        self._content = ""

    def start(self) -> Iterator[ResponseEvent]:
        """Yields nothing: the item's own event has everything."""
        yield from ()

    def grow(self, arguments: str) -> Iterator[ResponseEvent]:
        """Reads a piece of the arguments' JSON and yields the event of what it adds."""
        piece = self._read(arguments)
        self._content += piece
        if piece:
            yield self._event("delta", delta=piece)

    def _read(self, arguments: str) -> str:
        return arguments

    def _event(self, kind: str, **members: Any) -> ResponseEvent:
        kind = f"{self.kind}.{kind}"
        return self._events.make(kind, item_id=self._id, output_index=self._index, **members)


class GrowingCall(_GrowingToolCall):
    """A tool call, as far as it has come."""

    kind = "function_call_arguments"

    def item(self, status: ItemStatus) -> OutputCall:
        """Returns the item as it is now."""
        return OutputCall(
            id=self._id,
            type="function_call",
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments=self._content,
        )

    def finish(self) -> Iterator[ResponseEvent]:
        """Yields the event before the item's last one."""
        yield self._event("done", arguments=self._content, name=self._name)


class GrowingCustomCall(_GrowingToolCall):
    """A call of a custom tool, as far as it has come."""

    kind = "custom_tool_call_input"

    def __init__(
        self, identity: str, index: int, events: EventFactory, call: ToolCallDelta
    ) -> None:
        super().__init__(identity, index, events, call)
        self._reader = InputReader()

    def item(self, status: ItemStatus) -> OutputCustomCall:
        """Returns the item as it is now."""
        return OutputCustomCall(
            id=self._id,
            type="custom_tool_call",
            status=status,
            call_id=self._call_id,
            name=self._name,
            input=self._content,
        )

    def finish(self) -> Iterator[ResponseEvent]:
        """Yields the event before the item's last one."""
        yield self._event("done", input=self._content)

    def _read(self, arguments: str) -> str:
        return self._reader.push(arguments)


GrowingItem = GrowingThoughts | GrowingMessage | GrowingCall | GrowingCustomCall


class OutputBuilder:
    """Turns deltas into items and their events. At most the last item is open."""

    def __init__(self, key: str, events: EventFactory, custom: frozenset[str]) -> None:
        """`key`: the random part of the items' ids. `custom`: the names of the custom tools."""
        self._key = key
        self._custom = custom
        self._events = events
        self._open: GrowingItem | None = None
        self.items: list[OutputItem] = []
        """Those that are closed."""

    def add(self, delta: Delta) -> Iterator[ResponseEvent]:
        """Yields the events of a delta."""
        if delta.reasoning:
            thoughts = self._open
            if not isinstance(thoughts, GrowingThoughts):
                yield from self._close("completed")
                thoughts = GrowingThoughts(self._id("rs"), len(self.items), self._events)
                yield from self._start(thoughts)
            yield from thoughts.grow(delta.reasoning)
        rest, calls = delta.calls_around_text()
        yield from self._add_calls(rest)
        # Tokens without text are a message's own only where there is one: a call has some, too.
        if delta.text or (delta.tokens and isinstance(self._open, GrowingMessage)):
            message = self._open
            if not isinstance(message, GrowingMessage):
                yield from self._close("completed")
                message = self._new_message()
                yield from self._start(message)
            yield from message.grow(delta)
        yield from self._add_calls(calls)

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        """Yields the last events. An answer without text or calls has an empty message.

        Not one that was cut within its thoughts.
        """
        if isinstance(self._open, GrowingThoughts) and status == "completed":
            yield from self._close("completed")
            yield from self._start(self._new_message())
        if self._open is None and not self.items:
            yield from self._start(self._new_message())
        yield from self._close(status)

    def abort(self) -> None:
        """Closes the open item without an event, where the stream breaks."""
        if self._open is None and not self.items:
            self._open = self._new_message()
        if self._open is not None:
            self.items.append(self._open.item("incomplete"))
            self._open = None

    def _add_calls(self, pieces: Iterable[ToolCallDelta]) -> Iterator[ResponseEvent]:
        for piece in pieces:
            call = self._open
            if not isinstance(call, GrowingCall | GrowingCustomCall) or piece.id is not None:
                yield from self._close("completed")
                call = self._new_call(piece)
                yield from self._start(call)
            yield from call.grow(piece.arguments)

    def _new_call(self, piece: ToolCallDelta) -> GrowingCall | GrowingCustomCall:
        index = len(self.items)
        if piece.name in self._custom:
            return GrowingCustomCall(self._id("ctc"), index, self._events, piece)
        return GrowingCall(self._id("fc"), index, self._events, piece)

    def _new_message(self) -> GrowingMessage:
        return GrowingMessage(self._id("msg"), len(self.items), self._events)

    def _start(self, item: GrowingItem) -> Iterator[ResponseEvent]:
        self._open = item
        yield self._event("added", len(self.items), item.item("in_progress"))
        yield from item.start()

    def _close(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        if self._open is None:
            return
        open_, self._open = self._open, None
        item = open_.item(status)
        self.items.append(item)
        yield from open_.finish()
        yield self._event("done", len(self.items) - 1, item)

    def _event(self, kind: str, index: int, item: OutputItem) -> ResponseEvent:
        return self._events.make(f"output_item.{kind}", output_index=index, item=item)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._key}_{len(self.items)}"
