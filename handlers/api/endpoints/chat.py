"""POST /v1/chat/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from msgspec import UNSET, Meta, UnsetType

from handlers.api import unsupported_fields
from handlers.api.conversation import Conversation, chat_options, tokenise
from handlers.api.generation import (
    ResponseMetadata,
    StreamSerializer,
    Usage,
    whole_response,
)
from handlers.api.logprobs import TokenLogprob, token_logprobs
from handlers.api.messages import Messages, template_messages
from handlers.api.parsing import read_json
from handlers.api.sampling import Choices, StreamOptions, Tokens, includes_usage
from handlers.api.schemas import ResponseSchema
from handlers.api.thinking import ThinkingFields
from handlers.api.tools import (
    ChatToolChoice,
    ChatTools,
    ToolConfig,
    chat_tool_choice,
    chat_tools,
    tool_config,
)
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest
from handlers.text.completion import Finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.api.generation import Events
    from handlers.api.http import Request, Response, StreamResponse, TokenUsage
    from handlers.api.model import DecoderModel
    from handlers.text.answer_format import ToolCallDelta
    from handlers.text.completion import Delta
    from handlers.text.logprobs import ScoredToken

UNSUPPORTED: UnsupportedFields = unsupported_fields.COMMON | {
    "functions": (),
    "function_call": ('"none"', '"auto"'),
    "modalities": ('["text"]',),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "chat_template": (),
    "add_special_tokens": ("false",),
    "prompt": (),
    "echo": ("false",),
    "suffix": (),
    "best_of": ("1",),
    "documents": (),
    "task": (),
    "max_output_tokens": (),
}


class ChatCompletionRequest(ThinkingFields, frozen=True, kw_only=True):
    """The body of a request to /v1/chat/completions."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    messages: Messages
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: ChatTools | None = None
    tool_choice: ChatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """The fields that limit the answer, OpenAI's newer name before the older one."""
        return {"max_completion_tokens": self.max_completion_tokens, "max_tokens": self.max_tokens}

    @property
    def tool_config(self) -> ToolConfig | None:
        """The tools that the answers may call. Raises InvalidRequest."""
        if not self.tools and self.tool_choice is None:
            return None
        tools, choice = chat_tools(self.tools), chat_tool_choice(self.tool_choice)
        return tool_config(tools, choice, self.parallel_tool_calls)

    @property
    def conversation(self) -> Conversation:
        """The conversation that is to be answered. Raises InvalidRequest."""
        options = chat_options(self)
        messages = template_messages(self.messages)
        return Conversation(
            messages, self.output_constraint, self.tool_config, options, self.thinking_options
        )

    @property
    def num_top_logprobs(self) -> int | None:
        """Returns how many of the likeliest tokens are wanted, or None. Raises InvalidRequest."""
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
        return None


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


class ChatToolCall(ResponseSchema, frozen=True, kw_only=True):
    """A call that the model asks for."""

    id: str
    type: Literal["function"]
    function: ChatFunctionCall

    @classmethod
    def of(cls, call: ToolCallDelta) -> ChatToolCall:
        """Returns a whole call."""
        function = ChatFunctionCall(name=call.name or "", arguments=call.arguments)
        return cls(id=call.id or "", type="function", function=function)


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
    def of(cls, choice: Delta, wants_logprobs: bool) -> ChatChoice:
        """Returns a whole choice."""
        calls = [ChatToolCall.of(call) for call in choice.tool_calls]
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


class ChatToolCallDelta(ResponseSchema, frozen=True, kw_only=True):
    """The next piece of a call: the first has its id and name, the others its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: ChatFunctionDelta

    @classmethod
    def of(cls, call: ToolCallDelta) -> ChatToolCallDelta:
        """Returns a piece of a call."""
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


@dataclass(frozen=True, slots=True)
class ChatSerializer(StreamSerializer):
    """Makes OpenAI's chunks: role, thoughts, text, calls, finish_reason, and usage on request."""

    metadata: ResponseMetadata
    n: int
    """How many choices there are."""
    include_usage: bool
    wants_logprobs: bool
    must_call: bool
    """Whether an answer has to be a call: then it has no content."""

    def start(self) -> Events:
        role = ChatDelta(role="assistant", content=None if self.must_call else "")
        return [self._chunk(index, role) for index in range(self.n)]

    def delta(self, delta: Delta) -> Events:
        chunks: Events = []
        # Never beside the text: clients look for one of the two in a chunk.
        if delta.reasoning:
            thoughts = ChatDelta(reasoning_content=delta.reasoning, reasoning=delta.reasoning)
            chunks.append(self._chunk(delta.index, thoughts))
        if delta.text or delta.tokens:
            logprobs = ChatLogprobs.of(delta.tokens) if self.wants_logprobs else None
            chunks.append(self._chunk(delta.index, ChatDelta(content=delta.text), logprobs))
        # One in each chunk: OpenAI's client joins calls by their index only across chunks.
        for call in delta.tool_calls:
            calls = ChatDelta(tool_calls=[ChatToolCallDelta.of(call)])
            chunks.append(self._chunk(delta.index, calls))
        if delta.finish_reason:
            chunks.append(self._chunk(delta.index, ChatDelta(), finish_reason=delta.finish_reason))
        return chunks

    def finish(self, usage: TokenUsage) -> Events:
        return [self._body([], Usage.of(usage))] if self.include_usage else []

    def _chunk(
        self,
        index: int,
        delta: ChatDelta,
        logprobs: ChatLogprobs | None = None,
        finish_reason: Finish | None = None,
    ) -> ChatCompletionChunk:
        choice = ChatChunkChoice(
            index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason
        )
        return self._body([choice], None if self.include_usage else UNSET)

    def _body(
        self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=f"chatcmpl-{self.metadata.key}",
            object="chat.completion.chunk",
            created=self.metadata.created,
            model=self.metadata.model,
            system_fingerprint=self.metadata.system_fingerprint,
            choices=choices,
            usage=usage,
        )


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Answers a conversation."""
    body = read_json(request.body, ChatCompletionRequest)
    n, logprobs = body.n or 1, body.num_top_logprobs
    conversation, ids = await tokenise(model, lambda: body.conversation)
    generation_request = await conversation.generation_request(
        model, ids, body, request.deadline, n=n, logprobs=logprobs
    )
    metadata, wants_logprobs = ResponseMetadata.of(model), logprobs is not None
    if body.stream:
        must_call = conversation.tools is not None and conversation.tools.must_call
        usage_wanted = includes_usage(body.stream_options)
        serializer = ChatSerializer(metadata, n, usage_wanted, wants_logprobs, must_call)
        return await generation_request.stream(model.completer, serializer)
    choices = await generation_request.run(model.completer)
    usage = generation_request.usage(choices)
    completion = ChatCompletion(
        id=f"chatcmpl-{metadata.key}",
        object="chat.completion",
        created=metadata.created,
        model=metadata.model,
        system_fingerprint=metadata.system_fingerprint,
        choices=[ChatChoice.of(choice, wants_logprobs) for choice in choices],
        usage=Usage.of(usage),
    )
    return whole_response(completion, choices, usage)
