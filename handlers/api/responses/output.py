"""The items of a response as they grow: deltas in, OpenAI's events out.

A whole answer takes the same way as a streamed one, so both have the same items. Knows no engine
and no request. Called by endpoint.py and events.py.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.api.logprob_shapes import token_logprobs

if TYPE_CHECKING:
    from handlers.api.deltas import CallDelta, Delta

Json = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]


class Message(msgspec.Struct):
    """The model's text: an item of one part."""

    id: str
    index: int
    text: str = ""
    logprobs: list[Json] = msgspec.field(default_factory=list)

    def item(self, status: Status) -> Json:
        """The item as it is now."""
        content = [] if status == "in_progress" else [self._part()]
        head = {"id": self.id, "type": "message", "status": status, "role": "assistant"}
        return head | {"content": content}

    def opening(self) -> list[Json]:
        """What follows the item's own event."""
        return [self._event("content_part.added", part=self._part())]

    def grow(self, delta: Delta) -> list[Json]:
        """More text."""
        logprobs = token_logprobs(delta.tokens)
        self.text += delta.text
        self.logprobs += logprobs
        return [self._event("output_text.delta", delta=delta.text, logprobs=logprobs)]

    def closing(self) -> list[Json]:
        """What comes before the end of the item."""
        return [
            self._event("output_text.done", text=self.text, logprobs=self.logprobs),
            self._event("content_part.done", part=self._part()),
        ]

    def _part(self) -> Json:
        logprobs = list(self.logprobs)
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs}

    def _event(self, kind: str, **more: object) -> Json:
        where = {"item_id": self.id, "output_index": self.index, "content_index": 0}
        return {"type": f"response.{kind}", **where, **more}


class FunctionCall(msgspec.Struct):
    """A call that the model asks for."""

    id: str
    index: int
    call_id: str
    name: str
    arguments: str = ""

    def item(self, status: Status) -> Json:
        """The item as it is now."""
        head = {"id": self.id, "type": "function_call", "status": status}
        return head | {"call_id": self.call_id, "name": self.name, "arguments": self.arguments}

    def opening(self) -> list[Json]:
        """Nothing: the item's own event says it all."""
        return []

    def grow(self, arguments: str) -> list[Json]:
        """More of the arguments' JSON."""
        self.arguments += arguments
        return [self._event("delta", delta=arguments)] if arguments else []

    def closing(self) -> list[Json]:
        """What comes before the end of the item."""
        return [self._event("done", arguments=self.arguments, name=self.name)]

    def _event(self, kind: str, **more: object) -> Json:
        where = {"item_id": self.id, "output_index": self.index}
        return {"type": f"response.function_call_arguments.{kind}", **where, **more}


class Output:
    """The items of one answer. At most the last of them is open."""

    def __init__(self, key: str) -> None:
        """`key`: what the items' ids have in common."""
        self._key = key
        self._open: Message | FunctionCall | None = None
        self.items: list[Json] = []
        """Those that are closed."""

    def add(self, delta: Delta) -> list[Json]:
        """The events of the next piece."""
        events: list[Json] = []
        # Tokens without text are a message's own only where there is one: a call has some, too.
        if delta.text or (delta.tokens and isinstance(self._open, Message)):
            message, events = self._message()
            events += message.grow(delta)
        for call in delta.calls:
            function_call, opening = self._function_call(call)
            events += opening + function_call.grow(call.arguments)
        return events

    def end(self, status: Status) -> list[Json]:
        """The last events. An answer without a word has an empty message."""
        opening = [] if self.items else self._message()[1] if self._open is None else []
        return opening + self._close(status)

    def _message(self) -> tuple[Message, list[Json]]:
        if isinstance(self._open, Message):
            return self._open, []
        events = self._close("completed")
        message = Message(self._id("msg"), len(self.items))
        return message, events + self._begin(message)

    def _function_call(self, call: CallDelta) -> tuple[FunctionCall, list[Json]]:
        if isinstance(self._open, FunctionCall) and call.id is None:
            return self._open, []
        events = self._close("completed")
        function_call = FunctionCall(
            self._id("fc"), len(self.items), call.id or "", call.name or ""
        )
        return function_call, events + self._begin(function_call)

    def _begin(self, item: Message | FunctionCall) -> list[Json]:
        self._open = item
        added = self._event("added", item, "in_progress")
        return [added, *item.opening()]

    def _close(self, status: Status) -> list[Json]:
        if self._open is None:
            return []
        item, self._open = self._open, None
        done = self._event("done", item, status)
        self.items.append(done["item"])
        return [*item.closing(), done]

    def _event(self, kind: str, item: Message | FunctionCall, status: Status) -> Json:
        return {
            "type": f"response.output_item.{kind}",
            "output_index": item.index,
            "item": item.item(status),
        }

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._key}_{len(self.items)}"
