"""The events of a response, from the first to the one with its whole body.

A whole answer is made of the same events as a streamed one, so both have the same items.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from handlers.api.endpoints.responses_items import EventFactory, OutputBuilder, ResponseEvent
from handlers.api.endpoints.responses_output import (
    IncompleteDetails,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from handlers.api.error_responses import error_body
from handlers.api.generation import StreamSerializer
from handlers.api.http import sse_event
from handlers.errors import Overloaded

if TYPE_CHECKING:
    from handlers.api.endpoints.responses_output import ResponseStatus
    from handlers.api.generation import Events
    from handlers.api.http import TokenUsage
    from handlers.text.completion import Delta


class ResponseSerializer(StreamSerializer):
    """Makes the events of one response, from the first to the one with its whole body."""

    end = b""
    """Nothing, not even [DONE]: the last event of a response says that it is the last."""

    def __init__(
        self, key: str, response: ResponseObject, custom: frozenset[str] = frozenset()
    ) -> None:
        """`response`: as it is before the answer begins. `key`: the random part of its id.

        `custom`: the names of the custom tools.
        """
        self._response = response
        self._events = EventFactory()
        self._output = OutputBuilder(key, self._events, custom)
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
