"""POST /v1/messages and its count of tokens, as Anthropic defines them.

Without the tools that Anthropic runs, and without what would need a memory between requests.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from handlers.api import unsupported_fields
from handlers.api.conversation import Conversation, prompt_options, tokenise
from handlers.api.endpoints.messages_input import (
    CheckedInputMessage,
    SystemBlocks,
    input_messages,
)
from handlers.api.endpoints.messages_output import MessageTokens
from handlers.api.endpoints.messages_stream import MessagesSerializer
from handlers.api.generation import ResponseMetadata, whole_response
from handlers.api.http import json_response
from handlers.api.parsing import read_json
from handlers.api.response_format import JsonSchema, OutputConstraint, schema_constraint
from handlers.api.sampling import SamplingFields, StopStrings, TokensOrNone
from handlers.api.thinking import EFFORTS, SWITCHES, TemplateKwargs, ThinkingOptions
from handlers.api.tools import FUNCTION, MAX_TOOLS, ToolConfig, is_function, tool_config
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest
from handlers.grammar.tool_grammar import Tool, ToolChoice

if TYPE_CHECKING:
    from handlers.api.http import Request, Response, StreamResponse
    from handlers.api.messages import TemplateMessage
    from handlers.api.model import DecoderModel

OWN_FIELDS = (
    "stop_sequences",
    "system",
    "thinking",
    "chat_template_kwargs",
    "enable_thinking",
)
"""The fields that are taken here, and that some of the other endpoints refuse."""

_COMMON = unsupported_fields.COMMON | unsupported_fields.THINKING

UNSUPPORTED: UnsupportedFields = {
    name: no_ops for name, no_ops in _COMMON.items() if name not in OWN_FIELDS
} | {
    "mcp_servers": (),
    "container": (),
    "echo": ("false",),
    "thread": (),
    "compaction": (),
    "prompt": (),
    "n": ("1",),
    "logprobs": ("false",),
    "top_logprobs": ("0",),
    "parallel_tool_calls": ("true",),
    "functions": (),
    "function_call": ('"none"', '"auto"'),
    "max_completion_tokens": (),
    "max_output_tokens": (),
    "chat_template": (),
    "add_generation_prompt": ("true",),
    "continue_final_message": ("false",),
}

IGNORED = (
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "billing_policy",
    "cache_control",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "speed",
    "user_profile_id",
    "workspace_id",
)
"""The fields that are ignored here, and not on every path. Agents send `context_management` with
every request: it asks a server to leave out what would not fit, and here that is refused."""

CUSTOM = "custom"
"""The type of tools that the client describes, which need not say it."""


class ThinkingConfig(msgspec.Struct, frozen=True):
    """How a model is to think before it answers."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    """The most tokens of its thoughts."""
    display: Literal["summarized", "omitted"] | None = None


class JsonOutputFormat(msgspec.Struct, frozen=True):
    """JSON that is valid under a schema."""

    type: Literal["json_schema"]
    schema: JsonSchema


class OutputConfig(msgspec.Struct, frozen=True):
    """The options of Anthropic's field `output_config`."""

    format: JsonOutputFormat | None = None
    effort: str | None = None


class MessagesTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the client runs. Of a tool that Anthropic describes only its type is read."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: JsonSchema | None = None
    strict: bool | None = None

    @property
    def is_described(self) -> bool:
        """Returns whether the client describes it. The log says once that others are ignored."""
        return self.type is None or self.type == CUSTOM or is_function(self.type)


CheckedMessagesTool = Annotated[
    MessagesTool,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"properties": {"name": {"type": "string"}}, "required": ["name"]},
                {
                    "properties": {"type": {"not": {"enum": [CUSTOM, FUNCTION, None]}}},
                    "required": ["type"],
                },
            ]
        }
    ),
]


class MessagesToolChoice(msgspec.Struct, frozen=True):
    """Says whether an answer may or must call a tool, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @property
    def tool_choice(self) -> ToolChoice:
        """The choice in the form that all endpoints share. Raises InvalidRequest."""
        if self.type == "any":
            return ToolChoice("required")
        if self.type != "tool":
            return ToolChoice(self.type)
        if self.name is None:
            raise InvalidRequest("tool_choice.name is required.", param="tool_choice.name")
        return ToolChoice("required", self.name)


class CountTokensRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of a request to /v1/messages/count_tokens."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    messages: Annotated[list[CheckedInputMessage], Meta(extra_json_schema={"minItems": 1})]
    system: str | SystemBlocks | None = None
    tools: Annotated[list[CheckedMessagesTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: JsonOutputFormat | None = None
    """The older place of output_config.format."""
    chat_template_kwargs: TemplateKwargs | None = None
    enable_thinking: bool | None = None
    """The same as in chat_template_kwargs, which take precedence."""

    @property
    def output_constraint(self) -> OutputConstraint | None:
        """The format that the answer is held to. Raises InvalidRequest where two are asked for."""
        field, given, other = self._format_field, self._format, super().output_constraint
        if given is None:
            return other
        if other is not None:
            raise InvalidRequest(
                f"{other.field} cannot go with {field}: send one of them.", param=other.field
            )
        return schema_constraint(field, f"{field}.schema", given.schema)

    @property
    def _format(self) -> JsonOutputFormat | None:
        return (self.output_config and self.output_config.format) or self.output_format

    @property
    def _format_field(self) -> str:
        return "output_format" if self._format is self.output_format else "output_config.format"

    @property
    def tool_config(self) -> ToolConfig | None:
        """The tools that the answer may call. Raises InvalidRequest."""
        given = self.tool_choice or MessagesToolChoice("auto")
        return tool_config(
            self._described_tools, given.tool_choice, not given.disable_parallel_tool_use
        )

    @property
    def _described_tools(self) -> list[Tool]:
        described = []
        for index, tool in enumerate(self.tools or ()):
            if tool.is_described:
                field = f"tools[{index}]"
                if tool.name is None:
                    raise InvalidRequest(f"{field}.name is required.", param=f"{field}.name")
                strict = tool.strict is True
                described.append(
                    Tool(tool.name, tool.description, tool.input_schema, strict, field)
                )
        return described

    @property
    def conversation(self) -> Conversation:
        """The conversation that is to be answered. Raises InvalidRequest."""
        messages = input_messages(self.system, self.messages)
        options = prompt_options(
            "messages",
            self.chat_template_kwargs,
            self._wants_thinking,
            continue_final_message=_is_begun(messages[-1]),
        )
        return Conversation(
            messages, self.output_constraint, self.tool_config, options, self.thinking_options
        )

    @property
    def thinking_options(self) -> ThinkingOptions:
        """The wishes that the fields have about thoughts. An effort alone turns none on."""
        effort = self.output_config.effort if self.output_config else None
        given = self.thinking
        return ThinkingOptions(
            enabled=self._wants_thinking,
            effort=EFFORTS.get(effort or ""),
            budget=given.budget_tokens if given else None,
            display="hidden" if given and given.display == "omitted" else "apart",
        )

    @property
    def _wants_thinking(self) -> bool | None:
        """Returns whether the model is to think, None where it decides itself."""
        if self.enable_thinking is not None or self.thinking is None:
            return self.enable_thinking
        return SWITCHES.get(self.thinking.type)


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True):
    """The body of a request to /v1/messages."""

    max_tokens: TokensOrNone
    """0 computes the prompt, so that the next request finds it in the cache."""
    stop_sequences: StopStrings | None = None
    stream: bool | None = None

    def __post_init__(self) -> None:
        """Raises InvalidRequest for what the types cannot express."""
        super().__post_init__()
        budget = self.thinking.budget_tokens if self.thinking else None
        limit = self.token_limit
        if budget and limit and budget >= limit:
            raise InvalidRequest(
                f"max_tokens of {limit:,} must be greater than thinking.budget_tokens of "
                f"{budget:,}: thoughts are a part of the answer.",
                param="max_tokens",
            )

    @property
    def may_be_empty(self) -> bool:
        """Returns whether a limit of 0 tokens is accepted."""
        return True

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, Anthropic's name before OpenAI's."""
        return tuple(filter(None, self.stop_sequences or ())) or super().stop_strings


def _is_begun(last: TemplateMessage) -> bool:
    """Returns whether the last message is an answer that is to be continued."""
    return last["role"] == "assistant" and "tool_calls" not in last


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Answers a conversation."""
    body = read_json(request.body, MessagesRequest)
    conversation, ids = await tokenise(model, lambda: body.conversation)
    generation_request = await conversation.generation_request(model, ids, body, request.deadline)
    serializer = MessagesSerializer(ResponseMetadata.of(model), request.id)
    if body.stream:
        return await generation_request.stream(model.completer, serializer)
    # Built up by the same events as a stream, so that both have the same blocks.
    deltas = [delta async for delta in generation_request.deltas(model.completer)]
    for delta in deltas:
        serializer.delta(delta)
    usage = generation_request.usage(deltas[-1:])
    return whole_response(serializer.whole(), deltas[-1:], usage)


async def count_tokens(model: DecoderModel, request: Request) -> Response:
    """Counts the tokens of a conversation's prompt, also where they leave no room for an answer.

    What is too long by its characters or its messages alone is refused, as by /tokenize.
    """
    body = read_json(request.body, CountTokensRequest)
    _, ids = await tokenise(model, lambda: body.conversation)
    return json_response(MessageTokens(input_tokens=len(ids)))
