"""POST /v1/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.api import fields
from handlers.api.answer import Bodies, Call, Stamp, collect, json_response, stream
from handlers.api.decoding import Refused, read_json
from handlers.api.fields import OpenAICall

if TYPE_CHECKING:
    from handlers.api.messages import Request, Response, StreamResponse
    from handlers.api.model import Model
    from handlers.text.completion import Finish, TextDelta

REFUSED: Refused = fields.REFUSED | {
    "best_of": ("1",),
    "echo": ("false",),
    "suffix": ('""',),
}


class CompletionCall(OpenAICall, frozen=True, kw_only=True):
    """The body."""

    prompt: str


async def create(model: Model, request: Request) -> Response | StreamResponse:
    """The continuation of a text. No chat template: the prompt is all that the model sees."""
    body = read_json(request.body, CompletionCall, REFUSED)
    prompt_ids = model.completer.encode(body.prompt, param="prompt", add_special_tokens=True)
    call = Call(
        prompt_ids=prompt_ids,
        params=body.params(room=model.engine.context_length - len(prompt_ids)),
        stop=body.stop_strings,
        deadline=request.deadline,
        prompt_field="prompt",
    )
    text = CompletionStream(Stamp(model.id, "cmpl"), call, body.wants_usage)
    if body.stream:
        return await stream(model.completer, call, text)
    answer = await collect(model.completer, call)
    usage = {"usage": call.usage(answer.completion_tokens)}
    return json_response(text.body(answer.text, answer.finish_reason) | usage)


@dataclass(frozen=True, slots=True)
class CompletionStream:
    """OpenAI's bodies: whole and in chunks they look the same."""

    stamp: Stamp
    call: Call
    include_usage: bool

    def opening(self) -> Bodies:
        """A text has no role to announce."""
        return []

    def delta(self, delta: TextDelta) -> Bodies:
        """The text and its finish_reason in one chunk."""
        body = self.body(delta.text, delta.finish_reason)
        if not self.include_usage:
            return [body]
        chunks = [body | {"usage": None}]
        if delta.finish_reason:
            usage = {"usage": self.call.usage(delta.completion_tokens)}
            chunks.append(self.stamp.body("text_completion", []) | usage)
        return chunks

    def body(self, text: str, finish_reason: Finish | None) -> dict[str, object]:
        """One choice of text."""
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return self.stamp.body("text_completion", [choice])
