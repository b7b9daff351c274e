"""POST /tokenize of a decoder, which also takes a chat, and POST /v1/chat/completions/render.

Both are vLLM's, and neither generates anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from handlers.api.conversation import Conversation, chat_options
from handlers.api.endpoints import chat
from handlers.api.endpoints import tokenize as texts
from handlers.api.endpoints.tokenize import TokenizeTextRequest, encode_text, tokens_response
from handlers.api.http import json_response
from handlers.api.messages import Messages, template_messages
from handlers.api.parsing import read_json
from handlers.api.schemas import ResponseSchema
from handlers.api.thinking import (
    ReasoningField,
    TemplateKwargs,
    ThinkingField,
    thinking_options,
)
from handlers.api.tools import ChatTools, chat_tools, tool_config
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest
from handlers.grammar.tool_grammar import ToolChoice

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import DecoderModel

UNSUPPORTED: UnsupportedFields = texts.UNSUPPORTED | {"chat_template": ()}


class TokenizeRequest(TokenizeTextRequest, frozen=True, kw_only=True):
    """A text, or a chat."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    messages: Messages | None = None
    """vLLM's. Rendered as a chat is, which adds all that the model expects."""
    tools: ChatTools | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    enable_thinking: bool | None = None
    reasoning_effort: str | None = None
    reasoning: ReasoningField | None = None
    thinking: ThinkingField | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class RenderedPrompt(ResponseSchema, frozen=True, kw_only=True):
    """The prompt that a model gets of a chat."""

    prompt: str
    token_ids: list[int]
    count: int
    max_model_len: int


async def tokenize(model: DecoderModel, request: Request) -> Response:
    """Answers the ids of a text or a chat, however many: most callers want to count them."""
    body = read_json(request.body, TokenizeRequest)
    ids = await model.tokenising.run(lambda: _encode(model, body))
    return tokens_response(model, ids, body)


async def render(model: DecoderModel, request: Request) -> Response:
    """Answers the prompt of a chat with this body, as text and as ids."""
    body = read_json(request.body, chat.ChatCompletionRequest)
    text, ids = await model.tokenising.run(lambda: _render(model, body.conversation))
    return json_response(
        RenderedPrompt(
            prompt=text,
            token_ids=ids,
            count=len(ids),
            max_model_len=model.engine.context_length,
        )
    )


def _render(model: DecoderModel, conversation: Conversation) -> tuple[str, list[int]]:
    prompt = conversation.prompt(model)
    return prompt.text, conversation.encode(model, prompt)


def _encode(model: DecoderModel, body: TokenizeRequest) -> list[int]:
    """Returns the ids of a text or a chat.

    Raises InvalidRequest unless there is one thing to encode, and as the reader does.
    """
    given = {"prompt": body.prompt, "content": body.content, "messages": body.messages}
    if sum(value is not None for value in given.values()) != 1:
        raise InvalidRequest("Send one of prompt, content and messages.", param="prompt")
    if body.messages is None:
        return encode_text(model, body)
    tools = tool_config(chat_tools(body.tools), ToolChoice(), None)
    options = chat_options(body)
    messages = template_messages(body.messages)
    thinking = thinking_options(body)
    conversation = Conversation(messages, tools=tools, options=options, thinking=thinking)
    return conversation.prompt_ids(model)
