"""A chat's answers in OpenAI's shapes, whole and as the chunks of a stream.

Knows deltas and no engine. Called by endpoint.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.api.answer import StreamShape
from handlers.api.logprob_shapes import chat_logprobs
from handlers.api.usage import usage_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.api.answer import Bodies, Call, Stamp
    from handlers.api.deltas import Answer, CallDelta, Delta, Finish, ToolCall
    from handlers.engine.params import GenerationStats


def whole_chat(
    stamp: Stamp, call: Call, answers: Sequence[Answer], wants_logprobs: bool
) -> dict[str, object]:
    """The body of an answer that is not streamed."""
    choices: Bodies = [
        {
            "index": index,
            "message": _message(answer),
            "logprobs": chat_logprobs(answer.tokens) if wants_logprobs else None,
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(answers)
    ]
    usage = usage_body(call.usage([answer.usage for answer in answers]))
    return stamp.body("chat.completion", choices) | {"usage": usage}


def _message(answer: Answer) -> dict[str, object]:
    """Makes the message. Its `content` is null where there are only calls, as at OpenAI."""
    content = None if answer.calls and not answer.text else answer.text
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [_whole_call(call) for call in answer.calls]
    return message


def _whole_call(call: ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _call_delta(call: CallDelta) -> dict[str, object]:
    """Writes a piece of a call: the first has its id and name, the others its arguments."""
    if call.id is None:
        return {"index": call.place, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.place, "id": call.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ChatStream(StreamShape):
    """OpenAI's chunks: the role, the text and the calls, the finish_reason, the usage if asked."""

    stamp: Stamp
    call: Call
    include_usage: bool
    wants_logprobs: bool
    must_call: bool = False
    """Whether an answer has to be a call: then it has no content."""

    def opening(self) -> Bodies:
        content = None if self.must_call else ""
        role: dict[str, object] = {"role": "assistant", "content": content}
        return [self._chunk(index, role) for index in range(len(self.call.prompts))]

    def delta(self, delta: Delta) -> Bodies:
        chunks = []
        if delta.text or delta.tokens:
            chunks.append(self._chunk(delta.index, {"content": delta.text}, delta))
        # One in each chunk: OpenAI's client joins calls by their index only across chunks.
        calls = [{"tool_calls": [_call_delta(call)]} for call in delta.calls]
        chunks += [self._chunk(delta.index, call) for call in calls]
        if delta.finish_reason:
            chunks.append(self._chunk(delta.index, {}, finish_reason=delta.finish_reason))
        return chunks

    def closing(self, usages: Sequence[GenerationStats]) -> Bodies:
        if not self.include_usage:
            return []
        usage = {"usage": usage_body(self.call.usage(usages))}
        return [self.stamp.body("chat.completion.chunk", []) | usage]

    def _chunk(
        self,
        index: int,
        content: Mapping[str, object],
        delta: Delta | None = None,
        finish_reason: Finish | None = None,
    ) -> dict[str, object]:
        logprobs = chat_logprobs(delta.tokens) if delta and self.wants_logprobs else None
        choice = {
            "index": index,
            "delta": content,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        body = self.stamp.body("chat.completion.chunk", [choice])
        return body | {"usage": None} if self.include_usage else body
