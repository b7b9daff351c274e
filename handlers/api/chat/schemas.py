"""The answers of /v1/chat/completions as structs."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from handlers.api.schemas import ResponseSchema, TokenLogprob, Usage


class ChatLogprobs(ResponseSchema, frozen=True, kw_only=True):
    """The natural logarithms of the tokens' probabilities."""

    content: list[TokenLogprob]
    refusal: None


class FunctionCall(ResponseSchema, frozen=True, kw_only=True):
    """`arguments` is JSON in a string."""

    name: str
    arguments: str


class ToolCall(ResponseSchema, frozen=True, kw_only=True):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatAnswer(ResponseSchema, frozen=True, kw_only=True):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(ResponseSchema, frozen=True, kw_only=True):
    """One of `n` answers."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(ResponseSchema, frozen=True, kw_only=True):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class FunctionDelta(ResponseSchema, frozen=True, kw_only=True):
    """The name comes with a call's first piece, its arguments piece by piece."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of a call."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class ChatDelta(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of the assistant's turn."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of one of `n` answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"] | None


class ChatCompletionChunk(ResponseSchema, frozen=True, kw_only=True):
    """An event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
