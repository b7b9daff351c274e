"""POST /v1/chat/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from handlers.api import fields
from handlers.api.answer import Bodies, Call, Stamp, collect, json_response, stream
from handlers.api.decoding import Refused, read_json
from handlers.api.fields import OpenAICall, Tokens
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from handlers.api.messages import Request, Response, StreamResponse
    from handlers.api.model import Model
    from handlers.text.completion import Finish, TextDelta

ROLES = ("system", "developer", "user", "assistant", "tool")

REFUSED: Refused = fields.REFUSED | {
    "top_logprobs": ("0",),
    "tools": ("[]",),
    "tool_choice": ('"none"', '"auto"'),
    "functions": ("[]",),
    "function_call": ('"none"', '"auto"'),
    "modalities": ('["text"]',),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "chat_template": (),
    "chat_template_kwargs": ("{}",),
    "continue_final_message": ("false",),
    "add_generation_prompt": ("true",),
}


class TextPart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """The one kind of content part that a text model reads."""

    text: str


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[Any] | None = None


class ChatCall(OpenAICall, frozen=True, kw_only=True):
    """The body."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Tokens | None = None

    @property
    def token_limit(self) -> int | None:
        """OpenAI's newer name goes before the older one."""
        return self.max_completion_tokens or self.max_tokens


async def create(model: Model, request: Request) -> Response | StreamResponse:
    """The answer to a conversation."""
    body = read_json(request.body, ChatCall, REFUSED)
    prompt_ids = model.completer.encode(_prompt(model, body.messages), param="messages")
    call = Call(
        prompt_ids=prompt_ids,
        params=body.params(room=model.engine.context_length - len(prompt_ids)),
        stop=body.stop_strings,
        deadline=request.deadline,
        prompt_field="messages",
    )
    stamp = Stamp(model.id, "chatcmpl")
    if body.stream:
        return await stream(model.completer, call, ChatStream(stamp, call, body.wants_usage))
    return json_response(_whole(stamp, call, await collect(model.completer, call)))


def _prompt(model: Model, messages: list[Message]) -> str:
    """Raises ContextLengthExceeded without rendering what has a message for every token.

    While a template renders, no other request gets a token.
    """
    context = model.engine.context_length
    if len(messages) > context:
        raise ContextLengthExceeded(
            f"There are {len(messages):,} messages, but the context holds {context:,} tokens: "
            f"send fewer.",
            param="messages",
        )
    return model.template.render([_turn(*item) for item in enumerate(messages)])


def _whole(stamp: Stamp, call: Call, answer: TextDelta) -> dict[str, object]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = _choice({"message": message}, answer.finish_reason)
    usage = call.usage(answer.completion_tokens)
    return stamp.body("chat.completion", [choice]) | {"usage": usage}


def _turn(index: int, message: Message) -> dict[str, str]:
    """A message as chat templates expect it. Raises InvalidRequest."""
    at = f"messages[{index}]"
    if message.role not in ROLES:
        raise InvalidRequest(
            f"{at}.role is {message.role!r}, but must be one of {', '.join(ROLES)}.",
            param=f"{at}.role",
        )
    if message.tool_calls:
        raise InvalidRequest(
            f"{at}.tool_calls is not supported by this server: leave it out.",
            param=f"{at}.tool_calls",
        )
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"{at}.content is required.", param=f"{at}.content")
    # Templates were trained with "system"; "developer" is OpenAI's newer name for the same.
    role = "system" if message.role == "developer" else message.role
    extras = {"name": message.name, "tool_call_id": message.tool_call_id}
    given = {name: value for name, value in extras.items() if value is not None}
    return {"role": role, "content": _text(message.content), **given}


def _text(content: str | list[TextPart] | None) -> str:
    """Parts are joined by line breaks, as vLLM and llama.cpp join them."""
    if isinstance(content, list):
        return "\n".join(part.text for part in content)
    return content or ""


def _choice(content: dict[str, object], finish_reason: Finish | None) -> dict[str, object]:
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


@dataclass(frozen=True, slots=True)
class ChatStream:
    """OpenAI's chunks: the role, the text, the finish_reason, and the usage when asked for."""

    stamp: Stamp
    call: Call
    include_usage: bool

    def opening(self) -> Bodies:
        return [self._chunk({"role": "assistant", "content": ""})]

    def delta(self, delta: TextDelta) -> Bodies:
        chunks = [self._chunk({"content": delta.text})] if delta.text else []
        if delta.finish_reason:
            chunks.append(self._chunk({}, delta.finish_reason))
            if self.include_usage:
                usage = {"usage": self.call.usage(delta.completion_tokens)}
                chunks.append(self.stamp.body("chat.completion.chunk", []) | usage)
        return chunks

    def _chunk(self, delta: dict[str, object], finish: Finish | None = None) -> dict[str, object]:
        body = self.stamp.body("chat.completion.chunk", [_choice({"delta": delta}, finish)])
        return body | {"usage": None} if self.include_usage else body
