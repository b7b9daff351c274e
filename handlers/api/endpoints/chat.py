"""POST /v1/chat/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from handlers.api import unsupported_fields
from handlers.api.conversation import Conversation, chat_options, tokenise
from handlers.api.endpoints.chat_output import ChatChoice, ChatCompletion
from handlers.api.endpoints.chat_stream import ChatSerializer
from handlers.api.generation import (
    ResponseMetadata,
    Usage,
    whole_response,
)
from handlers.api.messages import Messages, template_messages
from handlers.api.parsing import read_json
from handlers.api.sampling import Choices, StreamOptions, Tokens, includes_usage
from handlers.api.thinking import ThinkingFields
from handlers.api.tools import (
    ChatToolChoice,
    ChatTools,
    CustomChoice,
    ToolConfig,
    chat_tool_choice,
    chat_tools,
    require_custom,
    tool_config,
)
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.http import Request, Response, StreamResponse
    from handlers.api.model import DecoderModel

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
        if isinstance(self.tool_choice, CustomChoice):
            require_custom(choice.name, tools)
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


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Answers a conversation."""
    body = read_json(request.body, ChatCompletionRequest)
    n, logprobs = body.n or 1, body.num_top_logprobs
    conversation, ids = await tokenise(model, lambda: body.conversation)
    generation_request = await conversation.generation_request(
        model, ids, body, request.deadline, n=n, logprobs=logprobs
    )
    metadata, wants_logprobs = ResponseMetadata.of(model), logprobs is not None
    tools = conversation.tools
    custom = tools.custom if tools else frozenset()
    if body.stream:
        must_call = tools is not None and tools.must_call
        serializer = ChatSerializer(
            metadata,
            n,
            include_usage=includes_usage(body.stream_options),
            wants_logprobs=wants_logprobs,
            must_call=must_call,
            custom=custom,
        )
        return await generation_request.stream(model.completer, serializer)
    choices = await generation_request.run(model.completer)
    usage = generation_request.usage(choices)
    completion = ChatCompletion(
        id=f"chatcmpl-{metadata.key}",
        object="chat.completion",
        created=metadata.created,
        model=metadata.model,
        system_fingerprint=metadata.system_fingerprint,
        choices=[ChatChoice.of(choice, wants_logprobs, custom) for choice in choices],
        usage=Usage.of(usage),
    )
    return whole_response(completion, choices, usage)
