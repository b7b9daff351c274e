"""A response's body, and the events that lead to it.

Knows deltas and no engine. Called by endpoint.py, and by answer.py as the shape of a stream.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.api.answer import StreamShape
from handlers.api.http import sse_event
from handlers.api.offered_tools import FUNCTION
from handlers.api.responses.output import Output
from handlers.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.api.answer import Stamp
    from handlers.api.deltas import Delta
    from handlers.api.responses.endpoint import ResponseCall
    from handlers.engine.params import GenerationStats, SamplingParams

Json = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete", "failed"]


class ResponseShape(StreamShape):
    """One response, from its first event to its whole body."""

    end = b""
    """Nothing, not even [DONE]: the last event of a response says that it is the last."""

    def __init__(self, stamp: Stamp, request: ResponseCall, params: SamplingParams) -> None:
        self._stamp = stamp
        self._request = request
        self._params = params
        self._output = Output(stamp.key)
        self._status: Literal["completed", "incomplete"] = "incomplete"
        self._events = 0

    def opening(self) -> list[Json]:
        """Makes the events before the first item."""
        return self._numbered(
            {"type": f"response.{name}", "response": self._body("in_progress")}
            for name in ("created", "in_progress")
        )

    def delta(self, delta: Delta) -> list[Json]:
        """Makes the events of the items."""
        events = self._output.add(delta)
        if delta.finish_reason:
            self._status = "incomplete" if delta.finish_reason == "length" else "completed"
            events += self._output.end(self._status)
        return self._numbered(events)

    def closing(self, usages: Sequence[GenerationStats]) -> list[Json]:
        """The last event, with the whole response."""
        (usage,) = usages
        return self._numbered([{"type": f"response.{self._status}", "response": self.whole(usage)}])

    def failed(self, error: BaseException) -> list[Json]:
        """The last event of a stream that breaks, with what there is of the response."""
        described: Json = super().failed(error)[0]
        self._output.end("incomplete")
        code = "rate_limit_exceeded" if isinstance(error, Overloaded) else "server_error"
        reason = {"code": code, "message": described["error"]["message"]}
        response = self._body("failed") | {"error": reason}
        return self._numbered([{"type": "response.failed", "response": response}])

    def frame(self, body: Json) -> bytes:
        """Writes an event with its name, which OpenAI's other streams have not."""
        return sse_event(body, name=body["type"])

    def whole(self, usage: GenerationStats) -> Json:
        """Makes the body, once the last delta is in."""
        return self._body(self._status) | {"usage": _usage(usage)}

    def _body(self, status: Status) -> Json:
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self._stamp.key}",
            "object": "response",
            "created_at": self._stamp.created,
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "model": self._stamp.model,
            "output": [*self._output.items],
            "usage": None,
            **_echo(self._request),
            "temperature": self._params.temperature,
            "top_p": self._params.top_p,
        }

    def _numbered(self, events: Iterable[Json]) -> list[Json]:
        numbered = []
        for event in events:
            numbered.append(event | {"sequence_number": self._events})
            self._events += 1
        return numbered


def _usage(usage: GenerationStats) -> Json:
    """Counts the tokens. Clients read the zeros: no reasoning is hidden, no cache is paid for."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _echo(request: ResponseCall) -> Json:
    """Repeats what was asked for, with the defaults of what was not."""
    return {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.token_limit,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "text": {"format": msgspec.to_builtins(request.format)},
        "tool_choice": msgspec.to_builtins(request.tool_choice or "auto"),
        "tools": [
            {"type": FUNCTION, **msgspec.to_builtins(function)}
            for function in request.functions.values()
        ],
        "top_logprobs": request.top_logprobs or 0,
        "truncation": "disabled",
        "user": None,
    }
