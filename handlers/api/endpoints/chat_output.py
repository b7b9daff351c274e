"""The bodies of a chat's answers, whole and in pieces, as OpenAI defines them.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from msgspec import UNSET, UnsetType

from handlers.api.custom_tools import input_of
from handlers.api.generation import Usage
from handlers.api.logprobs import TokenLogprob, token_logprobs
from handlers.api.schemas import ResponseSchema
from handlers.text.completion import Finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.text.answer_format import ToolCallDelta
    from handlers.text.completion import Delta
    from handlers.text.logprobs import ScoredToken


class ChatLogprobs(ResponseSchema, frozen=True, kw_only=True):
    """The natural logarithms of the tokens' probabilities."""

    content: list[TokenLogprob]
    refusal: None

    @classmethod
    def of(cls, tokens: Sequence[ScoredToken]) -> ChatLogprobs:
        """Returns the logprobs of the tokens of a choice or of a chunk."""
        return cls(content=token_logprobs(tokens), refusal=None)


class ChatFunctionCall(ResponseSchema, frozen=True, kw_only=True):
    """`arguments` is JSON in a string."""

    name: str
    arguments: str


class ChatCustomCall(ResponseSchema, frozen=True, kw_only=True):
    """`input` is a text."""

    name: str
    input: str


class ChatToolCall(ResponseSchema, frozen=True, kw_only=True):
    """A call that the model asks for: of a function, or of a custom tool."""

    id: str
    type: Literal["function", "custom"]
    function: ChatFunctionCall | UnsetType = UNSET
    custom: ChatCustomCall | UnsetType = UNSET

    @classmethod
    def of(cls, call: ToolCallDelta, custom: frozenset[str]) -> ChatToolCall:
        """Returns a whole call. `custom`: the names of the custom tools."""
        name, identity = call.name or "", call.id or ""
        if name in custom:
            taken = ChatCustomCall(name=name, input=input_of(call.arguments))
            return cls(id=identity, type="custom", custom=taken)
        function = ChatFunctionCall(name=name, arguments=call.arguments)
        return cls(id=identity, type="function", function=function)


class ChatAnswer(ResponseSchema, frozen=True, kw_only=True):
    """The assistant's turn. Its content is null where there are only calls, as at OpenAI."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | UnsetType = UNSET
    """The thoughts before the answer, where there are some: DeepSeek's name."""
    reasoning: str | UnsetType = UNSET
    """The same under vLLM's and OpenRouter's name."""
    tool_calls: list[ChatToolCall] | UnsetType = UNSET


class ChatChoice(ResponseSchema, frozen=True, kw_only=True):
    """One of `n` answers."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Finish

    @classmethod
    def of(cls, choice: Delta, wants_logprobs: bool, custom: frozenset[str]) -> ChatChoice:
        """Returns a whole choice. `custom`: the names of the custom tools."""
        calls = [ChatToolCall.of(call, custom) for call in choice.tool_calls]
        return cls(
            index=choice.index,
            message=ChatAnswer(
                role="assistant",
                content=None if calls and not choice.text else choice.text,
                refusal=None,
                reasoning_content=choice.reasoning or UNSET,
                reasoning=choice.reasoning or UNSET,
                tool_calls=calls or UNSET,
            ),
            logprobs=ChatLogprobs.of(choice.tokens) if wants_logprobs else None,
            finish_reason=cast("Finish", choice.finish_reason),
        )


class ChatCompletion(ResponseSchema, frozen=True, kw_only=True):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatFunctionDelta(ResponseSchema, frozen=True, kw_only=True):
    """The name comes with a call's first piece, its arguments piece by piece."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ChatCustomDelta(ResponseSchema, frozen=True, kw_only=True):
    """The name comes with a call's first piece, its input piece by piece."""

    name: str | UnsetType = UNSET
    input: str


class ChatToolCallDelta(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of a call: the first has its id and name, the others its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: ChatFunctionDelta | UnsetType = UNSET
    custom: ChatCustomDelta | UnsetType = UNSET

    @classmethod
    def of(cls, call: ToolCallDelta) -> ChatToolCallDelta:
        """Returns a piece of a function's call."""
        if call.id is None:
            return cls(index=call.index, function=ChatFunctionDelta(arguments=call.arguments))
        function = ChatFunctionDelta(name=call.name or "", arguments=call.arguments)
        return cls(index=call.index, id=call.id, type="function", function=function)


class ChatDelta(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of the assistant's turn."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ChatToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of one of `n` answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletionChunk(ResponseSchema, frozen=True, kw_only=True):
    """An event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
