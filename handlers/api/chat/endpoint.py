"""POST /v1/chat/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from handlers.api import unsupported_fields
from handlers.api.answer import Stamp, collect, stream, timed_response
from handlers.api.chat.choices import ChatStream, whole_chat
from handlers.api.chat.messages import Messages, template_messages
from handlers.api.conversation import Conversation, read
from handlers.api.fields import OpenAICall, Tokens
from handlers.api.offered_tools import offered
from handlers.api.parsing import read_json
from handlers.api.prompt_options import Kwargs, chat_options
from handlers.api.structured import form_of
from handlers.api.tools import Choice, Toolbox, ToolList, toolbox_of
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


class ChatCall(OpenAICall, frozen=True, kw_only=True):
    """The body."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    messages: Messages
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: ToolList | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: Kwargs | None = None
    enable_thinking: bool | None = None
    """The same as in chat_template_kwargs, which go before it."""
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """The fields that limit the answer, OpenAI's newer name before the older one."""
        return {"max_completion_tokens": self.max_completion_tokens, "max_tokens": self.max_tokens}

    @property
    def toolbox(self) -> Toolbox | None:
        """What the answers may call. Raises InvalidRequest."""
        return toolbox_of(offered(self.tools), self.tool_choice, self.parallel_tool_calls)

    @property
    def conversation(self) -> Conversation:
        """What is to be answered. Raises InvalidRequest."""
        options = chat_options(self)
        messages = template_messages(self.messages)
        return Conversation(messages, form_of(self), self.toolbox, options=options)

    @property
    def told_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell. Raises InvalidRequest."""
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
        return None


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Answers a conversation."""
    body = read_json(request.body, ChatCall)
    told = body.told_logprobs
    conversation, ids = await read(model, lambda: body.conversation)
    call = await conversation.call(
        model, ids, body, request.deadline, choices=body.n or 1, logprobs=told
    )
    stamp = Stamp.of(model, "chatcmpl")
    if body.stream:
        must_call = conversation.toolbox is not None and conversation.toolbox.mode == "required"
        shape = ChatStream(stamp, call, body.wants_usage, told is not None, must_call)
        return await stream(model.completer, call, shape)
    answers = await collect(model.completer, call)
    return timed_response(whole_chat(stamp, call, answers, told is not None), call, answers)
