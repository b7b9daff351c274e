"""The answers of /v1/responses as structs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from handlers.api.schemas import ResponseSchema, TokenLogprob


class OutputPart(ResponseSchema, frozen=True, kw_only=True):
    """A message's one part."""

    type: Literal["output_text"]
    text: str
    annotations: list[None]
    logprobs: list[TokenLogprob]


class OutputMessage(ResponseSchema, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """What the model says."""

    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputPart]


class OutputCall(ResponseSchema, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call that the model asks for. `arguments` is JSON in a string."""

    id: str
    status: Literal["completed", "incomplete"]
    call_id: str
    name: str
    arguments: str


class InputDetails(ResponseSchema, frozen=True, kw_only=True):
    """`cached_tokens` were read from an earlier request's cache."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(ResponseSchema, frozen=True, kw_only=True):
    """No model here hides its reasoning."""

    reasoning_tokens: int


class ResponseUsage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of the prompt and of the answer."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class IncompleteDetails(ResponseSchema, frozen=True, kw_only=True):
    """The answer was cut: by a limit of the request, of the context or of time."""

    reason: Literal["max_output_tokens"]


class Response(ResponseSchema, frozen=True, kw_only=True):
    """The answer to an input, with what was asked for."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputMessage | OutputCall]
    usage: ResponseUsage
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, None]
    service_tier: Literal["default"]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: None


class InputTokens(ResponseSchema, frozen=True, kw_only=True):
    """The count of a prompt's tokens."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class ResponseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a streamed response. What else it has depends on its `type`."""

    type: str
    sequence_number: int
