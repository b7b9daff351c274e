"""The events of a response, and the output items that they build up.

A whole answer is made of the same events as a streamed one, so both have the same items.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from handlers.api.endpoints.responses_output import (
    DescribedItem,
    IncompleteDetails,
    OutputCall,
    OutputMessage,
    OutputPart,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from handlers.api.error_responses import error_body
from handlers.api.generation import StreamSerializer
from handlers.api.http import sse_event
from handlers.api.logprobs import TokenLogprob, token_logprobs
from handlers.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.api.endpoints.responses_output import ItemStatus, OutputItem, ResponseStatus
    from handlers.api.generation import Events
    from handlers.api.http import TokenUsage
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
    part: OutputPart | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
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


class GrowingMessage:
    """The model's text, as far as it has come: an item of one part."""

    def __init__(self, identity: str, index: int, events: EventFactory) -> None:
        self._id = identity
        self._index = index
        self._events = events
        self._text = ""
        self._logprobs: list[TokenLogprob] = []

    def item(self, status: ItemStatus) -> OutputMessage:
        """Returns the item as it is now."""
        content = [] if status == "in_progress" else [self._part()]
        return OutputMessage(
            id=self._id, type="message", status=status, role="assistant", content=content
        )

    def start(self) -> Iterator[ResponseEvent]:
        """Yields the events after the item's own."""
        yield self._event("content_part.added", part=self._part())

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

    def _event(self, kind: str, **members: Any) -> ResponseEvent:
        return self._events.make(
            kind, item_id=self._id, output_index=self._index, content_index=0, **members
        )


class GrowingCall:
    """A tool call, as far as it has come."""

    def __init__(
        self, identity: str, index: int, events: EventFactory, call: ToolCallDelta
    ) -> None:
        self._id = identity
        self._index = index
        self._events = events
        self._call_id = call.id or ""
        self._name = call.name or ""
        self._arguments = ""

    def item(self, status: ItemStatus) -> OutputCall:
        """Returns the item as it is now."""
        return OutputCall(
            id=self._id,
            type="function_call",
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments=self._arguments,
        )

    def start(self) -> Iterator[ResponseEvent]:
        """Yields nothing: the item's own event has everything."""
        yield from ()

    def grow(self, arguments: str) -> Iterator[ResponseEvent]:
        """Appends to the arguments' JSON and yields the event."""
        self._arguments += arguments
        if arguments:
            yield self._event("delta", delta=arguments)

    def finish(self) -> Iterator[ResponseEvent]:
        """Yields the event before the item's last one."""
        yield self._event("done", arguments=self._arguments, name=self._name)

    def _event(self, kind: str, **members: Any) -> ResponseEvent:
        kind = f"function_call_arguments.{kind}"
        return self._events.make(kind, item_id=self._id, output_index=self._index, **members)


class OutputBuilder:
    """Turns deltas into items and their events. At most the last item is open."""

    def __init__(self, key: str, events: EventFactory) -> None:
        """`key`: the random part of the items' ids."""
        self._key = key
        self._events = events
        self._open: GrowingMessage | GrowingCall | None = None
        self.items: list[OutputItem] = []
        """Those that are closed."""

    def add(self, delta: Delta) -> Iterator[ResponseEvent]:
        """Yields the events of a delta."""
        # Tokens without text are a message's own only where there is one: a call has some, too.
        if delta.text or (delta.tokens and isinstance(self._open, GrowingMessage)):
            message = self._open
            if not isinstance(message, GrowingMessage):
                yield from self._close("completed")
                message = self._new_message()
                yield from self._start(message)
            yield from message.grow(delta)
        for piece in delta.tool_calls:
            call = self._open
            if not isinstance(call, GrowingCall) or piece.id is not None:
                yield from self._close("completed")
                call = GrowingCall(self._id("fc"), len(self.items), self._events, piece)
                yield from self._start(call)
            yield from call.grow(piece.arguments)

    def end(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        """Yields the last events. An answer without text or calls has an empty message."""
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

    def _new_message(self) -> GrowingMessage:
        return GrowingMessage(self._id("msg"), len(self.items), self._events)

    def _start(self, item: GrowingMessage | GrowingCall) -> Iterator[ResponseEvent]:
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


class ResponseSerializer(StreamSerializer):
    """Makes the events of one response, from the first to the one with its whole body."""

    end = b""
    """Nothing, not even [DONE]: the last event of a response says that it is the last."""

    def __init__(self, key: str, response: ResponseObject) -> None:
        """`response`: as it is before the answer begins. `key`: the random part of its id."""
        self._response = response
        self._events = EventFactory()
        self._output = OutputBuilder(key, self._events)
        self._status: ResponseStatus = "incomplete"

    def start(self) -> Events:
        """Returns the events before the first item."""
        return [
            self._events.make(name, response=self._response) for name in ("created", "in_progress")
        ]

    def delta(self, delta: Delta) -> Events:
        """Returns the events of the items."""
        events: Events = [*self._output.add(delta)]
        if delta.finish_reason:
            cut = delta.finish_reason == "length"
            self._status = "incomplete" if cut else "completed"
            events += self._output.end("incomplete" if cut else "completed")
        return events

    def finish(self, usage: TokenUsage) -> Events:
        """Returns the last event, with the whole response."""
        return [self._events.make(self._status, response=self.whole(usage))]

    def error(self, error: BaseException) -> Events:
        """Returns the last event of a stream that breaks, with what there is of the response."""
        self._output.abort()
        code = "rate_limit_exceeded" if isinstance(error, Overloaded) else "server_error"
        failure = ResponseFailure(code=code, message=error_body(error).error.message)
        response = replace(
            self._response, status="failed", error=failure, output=[*self._output.items]
        )
        return [self._events.make("failed", response=response)]

    def encode_event(self, event: object) -> bytes:
        """Encodes an event with its name, which OpenAI's other streams have not."""
        return sse_event(event, name=event.type if isinstance(event, ResponseEvent) else None)

    def whole(self, usage: TokenUsage) -> ResponseObject:
        """Returns the body, once the last delta is in."""
        cut = self._status == "incomplete"
        return replace(
            self._response,
            status=self._status,
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if cut else None,
            output=[*self._output.items],
            usage=ResponseUsage.of(usage),
        )
