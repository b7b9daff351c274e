"""POST /v1/responses, as OpenAI defines it, without what would need a memory between requests.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handlers.api import fields
from handlers.api.answer import Stamp, stream
from handlers.api.conversation import Conversation
from handlers.api.decoding import Fields, Refused, members_of, read_json
from handlers.api.fields import Sampling, Tokens
from handlers.api.json_response import json_response
from handlers.api.responses.events import ResponseShape
from handlers.api.responses.items import Item, template_messages
from handlers.api.structured import (
    Form,
    JsonObjectFormat,
    TextFormat,
    check_format,
    form_of,
    object_form,
    schema_form,
)
from handlers.api.tools import (
    MAX_TOOLS,
    AllowedChoice,
    AllowedTools,
    FunctionSpec,
    NamedChoice,
    NamedFunction,
    toolbox_of,
)
from handlers.api.usage import timing_whole
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.answer import Call
    from handlers.api.messages import Request, Response, StreamResponse
    from handlers.api.model import Model
    from handlers.api.tools import Toolbox

REFUSED: Refused = fields.REFUSED | {
    "previous_response_id": (),
    "conversation": (),
    "background": ("false",),
    "prompt": (),
    "truncation": ('"disabled"',),
    "context_management": ("[]",),
    "n": ("1",),
    "logprobs": ("false",),
}

IGNORED = (
    "access_programs",
    "background_options",
    "image",
    "max_tool_calls",
    "reasoning",
    "stream_options",
)
"""Taken without effect, besides those that every path ignores."""

# The one member of OpenAI's `include` that a text model without built-in tools can give.
LOGPROBS = "message.output_text.logprobs"


class JsonSchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that is valid under a schema: a chat's `response_format` without its inner object."""

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True):
    """OpenAI's `text`."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None


class ResponseTool(FunctionSpec, frozen=True, kw_only=True):
    """The one kind of tool: a chat's, without its inner object."""

    type: Literal["function"]


class ResponseChoice(NamedFunction, frozen=True, tag_field="type", tag="function"):
    """This function has to be called."""

    @property
    def of_chats(self) -> NamedChoice:
        """The same in a chat's shape."""
        return NamedChoice(NamedFunction(self.name))


class ResponseAllowed(msgspec.Struct, frozen=True, tag_field="type", tag="allowed_tools"):
    """Of these functions one may be called, or must."""

    mode: Literal["auto", "required"]
    tools: Annotated[tuple[ResponseChoice, ...], Meta(min_length=1, max_length=MAX_TOOLS)]

    @property
    def of_chats(self) -> AllowedChoice:
        """The same in a chat's shape."""
        return AllowedChoice(AllowedTools(self.mode, tuple(tool.of_chats for tool in self.tools)))


class ResponseCall(Sampling, frozen=True, kw_only=True):
    """The body."""

    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    text: TextOptions | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseChoice | ResponseAllowed | None = (
        None
    )
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None

    @classmethod
    def check_members(cls, fields: Fields) -> None:
        """Refuses members of `text.format`, too, that are not supported."""
        super().check_members(fields)
        text = members_of(fields.get("text"))
        if "format" in text:
            check_format("text.format", text["format"], schema_inside=False)

    @property
    def token_limit(self) -> int | None:
        """OpenAI's name goes before ours."""
        return self.max_output_tokens or self.max_tokens

    @property
    def format(self) -> TextFormat | JsonObjectFormat | JsonSchemaFormat:
        """The form that `text` asks for."""
        return (self.text and self.text.format) or TextFormat()

    @property
    def form(self) -> Form | None:
        """The form that any of the fields asks for. Raises InvalidRequest where two do."""
        asked, other = self.format, form_of(self)
        if isinstance(asked, TextFormat):
            return other
        if other is not None:
            raise InvalidRequest(
                f"{other.field} cannot go with text.format: send one of them.", param=other.field
            )
        schema = asked.schema
        if schema is None:
            return object_form("text.format")
        strict = asked.strict if isinstance(asked, JsonSchemaFormat) else None
        return schema_form("text.format.schema", schema, strict)

    @property
    def toolbox(self) -> Toolbox | None:
        """What the answer may call. Raises InvalidRequest."""
        choice = self.tool_choice
        asked = choice if choice is None or isinstance(choice, str) else choice.of_chats
        return toolbox_of(self.tools or (), asked, self.parallel_tool_calls, inner="")

    @property
    def told_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell, None for no logprobs at all."""
        return (self.top_logprobs or 0) if LOGPROBS in (self.include or ()) else None


async def create(model: Model, request: Request) -> Response | StreamResponse:
    """The answer to an input."""
    body = read_json(request.body, ResponseCall, REFUSED)
    messages = template_messages(body.instructions, body.input)
    conversation = Conversation(messages, body.form, body.toolbox, field="input")
    call = await conversation.call(model, body, request.deadline, logprobs=body.told_logprobs)
    shape = ResponseShape(Stamp.of(model, "resp"), body)
    if body.stream:
        return await stream(model.completer, call, shape)
    return await _whole(model, call, shape)


async def _whole(model: Model, call: Call, shape: ResponseShape) -> Response:
    """Made of the same events as a stream, so that both have the same items."""
    deltas = [delta async for delta in call.deltas(model.completer)]
    for delta in deltas:
        shape.delta(delta)
    usage = deltas[-1].usage
    return json_response(shape.whole(usage), timing_whole([usage]))
