"""POST /v1/responses and its count of tokens, as OpenAI defines them.

Without what would need a memory between requests.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from handlers.api import unsupported_fields
from handlers.api.answer import Stamp, stream
from handlers.api.conversation import Conversation, read
from handlers.api.fields import Sampling, Tokens
from handlers.api.http import json_response
from handlers.api.offered_tools import FUNCTION, is_offered, not_offered
from handlers.api.parsing import RawFields, members_of, read_json
from handlers.api.prompt_options import Kwargs, prompt_options
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
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.api.usage import timing_whole
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.answer import Call
    from handlers.api.http import Request, Response, StreamResponse
    from handlers.api.model import DecoderModel
    from handlers.api.tools import Toolbox

UNSUPPORTED: UnsupportedFields = unsupported_fields.COMMON | {
    "previous_response_id": (),
    "conversation": (),
    "background": ("false",),
    "prompt": (),
    "truncation": ('"disabled"',),
    "context_management": (),
    "n": ("1",),
    "logprobs": ("false",),
    "enable_response_messages": ("false",),
    "previous_input_messages": (),
    "previous_response": (),
    "max_completion_tokens": (),
    "chat_template": (),
    "add_generation_prompt": ("true",),
    "continue_final_message": ("false",),
}

IGNORED = (
    "access_programs",
    "background_options",
    "image",
    "max_tool_calls",
    "stream_options",
)
"""The fields that are taken without effect, besides those that every path ignores."""

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


# Of a tool of another type only its type is read.
_FUNCTION_IS_NAMED = Meta(
    extra_json_schema={
        "anyOf": [
            {"properties": {"name": {"type": "string"}}, "required": ["name"]},
            {"properties": {"type": {"not": {"const": FUNCTION}}}},
        ]
    }
)


class ResponseTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function: a chat's tool, without its inner object. Those of other types are left out."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(msgspec.Struct, frozen=True):
    """One of the tools."""

    type: str
    name: str | None = None

    def of_chats(self, at: str) -> NamedChoice:
        """The same in a chat's shape. Raises InvalidRequest."""
        if self.name is None:
            raise InvalidRequest(f"{at}.name is required.", param=f"{at}.name")
        return NamedChoice(NamedFunction(self.name))


class ResponseChoice(ChosenTool, frozen=True, omit_defaults=True):
    """The function that has to be called, or the functions of which one may or must be."""

    type: Annotated[str, Meta(extra_json_schema={"enum": [FUNCTION, "allowed_tools"]})]
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[tuple[ChosenTool, ...], Meta(min_length=1, max_length=MAX_TOOLS)] | None = None

    @property
    def as_in_chats(self) -> NamedChoice | AllowedChoice:
        """The same in a chat's shape. Raises InvalidRequest."""
        if self.type == FUNCTION:
            return self.of_chats("tool_choice")
        if self.type != "allowed_tools":
            raise not_offered(self.type)
        if self.mode is None or self.tools is None:
            field = f"tool_choice.{'mode' if self.mode is None else 'tools'}"
            raise InvalidRequest(f"{field} is required.", param=field)
        chosen = tuple(
            tool.of_chats(f"tool_choice.tools[{place}]")
            for place, tool in enumerate(self.tools)
            if is_offered(tool.type)
        )
        if not chosen:
            raise not_offered(self.tools[0].type)
        return AllowedChoice(AllowedTools(self.mode, chosen))


class ResponseCall(Sampling, frozen=True, kw_only=True):
    """The body."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    text: TextOptions | None = None
    tools: (
        Annotated[list[Annotated[ResponseTool, _FUNCTION_IS_NAMED]], Meta(max_length=MAX_TOOLS)]
        | None
    ) = None
    tool_choice: Literal["none", "auto", "required"] | ResponseChoice | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    chat_template_kwargs: Kwargs | None = None
    enable_thinking: bool | None = None
    """The same as in chat_template_kwargs, which go before it."""

    @classmethod
    def check_members(cls, fields: RawFields) -> None:
        """Refuses members of `text.format`, too, that are not supported."""
        super().check_members(fields)
        text = members_of(fields.get("text"))
        if "format" in text:
            check_format("text.format", text["format"], schema_inside=False)

    @property
    def limits(self) -> dict[str, int | None]:
        """The fields that limit the answer, OpenAI's name before ours."""
        return {"max_output_tokens": self.max_output_tokens, "max_tokens": self.max_tokens}

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
        asked = choice.as_in_chats if isinstance(choice, ResponseChoice) else choice
        return toolbox_of(self.functions, asked, self.parallel_tool_calls)

    @property
    def functions(self) -> dict[str, FunctionSpec]:
        """Those of the tools that are offered, by their paths. Raises InvalidRequest."""
        functions = {}
        for place, tool in enumerate(self.tools or ()):
            if is_offered(tool.type):
                if tool.name is None:
                    field = f"tools[{place}].name"
                    raise InvalidRequest(f"{field} is required.", param=field)
                functions[f"tools[{place}]"] = FunctionSpec(
                    tool.name, tool.description, tool.parameters, tool.strict
                )
        return functions

    @property
    def conversation(self) -> Conversation:
        """What is to be answered. Raises InvalidRequest."""
        messages = template_messages(self.instructions, self.input)
        options = prompt_options(self.chat_template_kwargs, self.enable_thinking)
        return Conversation(messages, self.form, self.toolbox, field="input", options=options)

    @property
    def told_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell, None for no logprobs at all."""
        return (self.top_logprobs or 0) if LOGPROBS in (self.include or ()) else None


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Answers an input."""
    body = read_json(request.body, ResponseCall)
    conversation, ids = await read(model, lambda: body.conversation)
    call = await conversation.call(model, ids, body, request.deadline, logprobs=body.told_logprobs)
    shape = ResponseShape(Stamp.of(model, "resp"), body, call.prompts[0].params)
    if body.stream:
        return await stream(model.completer, call, shape)
    return await _whole(model, call, shape)


async def count(model: DecoderModel, request: Request) -> Response:
    """Counts the tokens of an input's prompt, also where they leave no room for an answer.

    What is too long by its characters or its messages alone is refused, as by /tokenize.
    """
    body = read_json(request.body, ResponseCall)
    _, ids = await read(model, lambda: body.conversation)
    return json_response({"object": "response.input_tokens", "input_tokens": len(ids)})


async def _whole(model: DecoderModel, call: Call, shape: ResponseShape) -> Response:
    """Makes the whole answer, of the same events as a stream, so that both have the same items."""
    deltas = [delta async for delta in call.deltas(model.completer)]
    for delta in deltas:
        shape.delta(delta)
    usage = deltas[-1].usage
    return json_response(shape.whole(usage), timing_whole([usage]), call.usage([usage]))
