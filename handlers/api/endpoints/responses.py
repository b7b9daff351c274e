"""POST /v1/responses and its count of tokens, as OpenAI defines them.

Without what would need a memory between requests.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from handlers.api import unsupported_fields
from handlers.api.conversation import Conversation, prompt_options, tokenise
from handlers.api.custom_tools import CUSTOM
from handlers.api.endpoints.responses_input import CheckedItem, input_messages
from handlers.api.endpoints.responses_output import ResponseInputTokens, ResponseObject
from handlers.api.endpoints.responses_stream import ResponseSerializer
from handlers.api.endpoints.responses_tools import CheckedTool, ResponseChoice, response_tools
from handlers.api.generation import ResponseMetadata, whole_response
from handlers.api.http import json_response
from handlers.api.parsing import MemberCheck, members_of, read_json
from handlers.api.response_format import (
    JsonObjectFormat,
    JsonSchema,
    OutputConstraint,
    TextFormat,
    check_format,
    schema_constraint,
)
from handlers.api.sampling import Tokens
from handlers.api.thinking import ReasoningField, ThinkingFields
from handlers.api.tools import (
    FUNCTION,
    MAX_TOOLS,
    ToolConfig,
    require_custom,
    tool_config,
)
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest
from handlers.grammar.tool_grammar import ToolChoice

if TYPE_CHECKING:
    from handlers.api.http import Request, Response, StreamResponse
    from handlers.api.model import DecoderModel
    from handlers.engine.params import SamplingParams

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
"""The fields that are ignored here, and not on every path."""

# The one member of OpenAI's `include` that a text model without built-in tools can give.
LOGPROBS = "message.output_text.logprobs"


class TextJsonSchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that is valid under a schema: a chat's `response_format` without its inner object."""

    schema: JsonSchema
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True):
    """The options of OpenAI's field `text`."""

    format: TextFormat | JsonObjectFormat | TextJsonSchemaFormat | None = None


def _check_text(value: msgspec.Raw) -> None:
    members = members_of(value)
    if "format" in members:
        check_format("text.format", members["format"], schema_inside=False)


class ResponsesRequest(ThinkingFields, frozen=True, kw_only=True):
    """The body of a request to /v1/responses."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    member_checks: ClassVar[Mapping[str, MemberCheck]] = {
        **ThinkingFields.member_checks,
        "text": _check_text,
    }
    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[CheckedItem], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    text: TextOptions | None = None
    tools: Annotated[list[CheckedTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseChoice | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """The fields that limit the answer, OpenAI's name before ours."""
        return {"max_output_tokens": self.max_output_tokens, "max_tokens": self.max_tokens}

    @property
    def format(self) -> TextFormat | JsonObjectFormat | TextJsonSchemaFormat:
        """The format that `text` asks for."""
        return (self.text and self.text.format) or TextFormat()

    @property
    def output_constraint(self) -> OutputConstraint | None:
        """The format that `text` or another field asks for. Raises InvalidRequest where two do."""
        given, other = self.format, super().output_constraint
        if isinstance(given, TextFormat):
            return other
        if other is not None:
            raise InvalidRequest(
                f"{other.field} cannot go with text.format: send one of them.", param=other.field
            )
        strict = given.strict if isinstance(given, TextJsonSchemaFormat) else None
        return schema_constraint("text.format", "text.format.schema", given.schema, strict)

    @property
    def tool_config(self) -> ToolConfig | None:
        """The tools that the answer may call. Raises InvalidRequest."""
        given, tools = self.tool_choice, response_tools(self.tools)
        if isinstance(given, ResponseChoice):
            choice = given.tool_choice
            if given.type == CUSTOM:
                require_custom(choice.name, tools)
        else:
            choice = ToolChoice(given or "auto")
        return tool_config(tools, choice, self.parallel_tool_calls)

    @property
    def conversation(self) -> Conversation:
        """The conversation that is to be answered. Raises InvalidRequest."""
        messages = input_messages(self.instructions, self.input)
        options = prompt_options("input", self.chat_template_kwargs, self.enable_thinking)
        return Conversation(
            messages, self.output_constraint, self.tool_config, options, self.thinking_options
        )

    @property
    def num_top_logprobs(self) -> int | None:
        """Returns how many of the likeliest tokens are wanted, None for no logprobs."""
        return (self.top_logprobs or 0) if LOGPROBS in (self.include or ()) else None

    def response(self, metadata: ResponseMetadata, params: SamplingParams) -> ResponseObject:
        """Returns the response before its answer begins, with the request's fields and defaults."""
        tools = [tool for tool in self.tools or () if tool.type in (FUNCTION, CUSTOM)]
        reasoning = self.reasoning or ReasoningField()
        return ResponseObject(
            id=f"resp_{metadata.key}",
            object="response",
            created_at=metadata.created,
            status="in_progress",
            error=None,
            incomplete_details=None,
            model=metadata.model,
            output=[],
            usage=None,
            background=False,
            instructions=self.instructions,
            max_output_tokens=self.token_limit,
            max_tool_calls=None,
            metadata=self.metadata or {},
            parallel_tool_calls=self.parallel_tool_calls is not False,
            previous_response_id=None,
            reasoning={"effort": reasoning.effort, "summary": reasoning.summary},
            service_tier="default",
            store=False,
            text={"format": msgspec.to_builtins(self.format)},
            tool_choice=msgspec.to_builtins(self.tool_choice or "auto"),
            tools=msgspec.to_builtins(tools),
            top_logprobs=self.top_logprobs or 0,
            truncation="disabled",
            user=None,
            temperature=params.temperature,
            top_p=params.top_p,
        )


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Answers an input."""
    body = read_json(request.body, ResponsesRequest)
    conversation, ids = await tokenise(model, lambda: body.conversation)
    generation_request = await conversation.generation_request(
        model, ids, body, request.deadline, logprobs=body.num_top_logprobs
    )
    metadata = ResponseMetadata.of(model)
    response = body.response(metadata, generation_request.prompts[0].params)
    custom = conversation.tools.custom if conversation.tools else frozenset()
    serializer = ResponseSerializer(metadata.key, response, custom)
    if body.stream:
        return await generation_request.stream(model.completer, serializer)
    # Built up by the same events as a stream, so that both have the same items.
    deltas = [delta async for delta in generation_request.deltas(model.completer)]
    for delta in deltas:
        serializer.delta(delta)
    usage = generation_request.usage(deltas[-1:])
    return whole_response(serializer.whole(usage), deltas[-1:], usage)


async def count(model: DecoderModel, request: Request) -> Response:
    """Counts the tokens of an input's prompt, also where they leave no room for an answer.

    What is too long by its characters or its messages alone is refused, as by /tokenize.
    """
    body = read_json(request.body, ResponsesRequest)
    _, ids = await tokenise(model, lambda: body.conversation)
    return json_response(ResponseInputTokens(object="response.input_tokens", input_tokens=len(ids)))
