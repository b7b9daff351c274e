"""The body of a response and of its output items, as OpenAI defines them.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from handlers.api.logprobs import TokenLogprob
from handlers.api.schemas import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.api.http import TokenUsage

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputPart(ResponseSchema, frozen=True, kw_only=True):
    """A message's one part."""

    type: Literal["output_text"]
    text: str
    annotations: list[None]
    logprobs: list[TokenLogprob]


class OutputMessage(ResponseSchema, frozen=True, kw_only=True):
    """A message that the model writes."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputPart]


class ReasoningPart(ResponseSchema, frozen=True, kw_only=True):
    """The one part of an item of reasoning."""

    type: Literal["reasoning_text"]
    text: str


class OutputReasoning(ResponseSchema, frozen=True, kw_only=True):
    """The thoughts before an answer. Nothing sums them up, so `summary` is empty."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[None]
    content: list[ReasoningPart]


class OutputCall(ResponseSchema, frozen=True, kw_only=True):
    """A call that the model asks for. `arguments` is JSON in a string."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class OutputCustomCall(ResponseSchema, frozen=True, kw_only=True):
    """A call of a custom tool, whose `input` is a text."""

    id: str
    type: Literal["custom_tool_call"]
    status: ItemStatus
    call_id: str
    name: str
    input: str


OutputItem = OutputReasoning | OutputMessage | OutputCall | OutputCustomCall


def _one_of(kinds: Mapping[type[ResponseSchema], str]) -> Meta:
    """Describes a value that is one of these structs, each with its `type`.

    msgspec describes a union of structs only where their tag comes first, and OpenAI's ids do.
    """
    references = {kind: f"#/components/schemas/{one.__name__}" for one, kind in kinds.items()}
    return Meta(
        extra_json_schema={
            "anyOf": [{"$ref": reference} for reference in references.values()],
            "discriminator": {"propertyName": "type", "mapping": references},
        }
    )


_ITEMS: dict[type[ResponseSchema], str] = {
    OutputMessage: "message",
    OutputCall: "function_call",
    OutputCustomCall: "custom_tool_call",
    OutputReasoning: "reasoning",
}
DescribedItem = Annotated[Any, _one_of(_ITEMS)]
DescribedPart = Annotated[
    Any, _one_of({OutputPart: "output_text", ReasoningPart: "reasoning_text"})
]


class InputTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """`cached_tokens` were read from an earlier request's cache."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """`reasoning_tokens` of the answer are thoughts, which come apart from its text."""

    reasoning_tokens: int


class ResponseUsage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of the prompt and of the answer."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, tokens: TokenUsage) -> ResponseUsage:
        """Returns the counts. Clients read the zero: no cache costs."""
        cached = tokens.cached_tokens
        return cls(
            input_tokens=tokens.prompt_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=cached, cache_write_tokens=0),
            output_tokens=tokens.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=tokens.reasoning_tokens),
            total_tokens=tokens.prompt_tokens + tokens.completion_tokens,
        )


class ResponseFailure(ResponseSchema, frozen=True, kw_only=True):
    """Why the stream of a response broke."""

    code: str
    message: str


class IncompleteDetails(ResponseSchema, frozen=True, kw_only=True):
    """The answer was cut: by a limit of the request, of the context or of time."""

    reason: Literal["max_output_tokens"]


class ResponseObject(ResponseSchema, frozen=True, kw_only=True):
    """The answer to an input, with the fields of the request."""

    parts: ClassVar[tuple[type[msgspec.Struct], ...]] = (*_ITEMS,)

    id: str
    object: Literal["response"]
    created_at: int
    status: ResponseStatus
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[DescribedItem]
    usage: ResponseUsage | None
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, str | None]
    service_tier: Literal["default"]
    store: Literal[False]
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    truncation: Literal["disabled"]
    user: None
    temperature: float
    top_p: float


class ResponseInputTokens(ResponseSchema, frozen=True, kw_only=True):
    """The count of a prompt's tokens."""

    object: Literal["response.input_tokens"]
    input_tokens: int
