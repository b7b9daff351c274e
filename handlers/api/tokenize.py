"""POST /tokenize of a decoder, and POST /v1/chat/completions/render: nothing is generated.

Texts are read as text_tokens.py reads them; a chat is vLLM's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from handlers.api.conversation import Conversation, TemplateKwargs, chat_options
from handlers.api.endpoints import chat
from handlers.api.http import json_response
from handlers.api.messages import Messages, template_messages
from handlers.api.parsing import read_json
from handlers.api.text_tokens import OF_TEXTS, TextCall, encode, size, tokens_response
from handlers.api.tools import ChatTools, chat_tools, tool_config
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest
from handlers.grammar.tool_grammar import ToolChoice

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import DecoderModel

UNSUPPORTED: UnsupportedFields = OF_TEXTS | {"chat_template": ()}


class TokenizeCall(TextCall, frozen=True, kw_only=True):
    """The body: a text, or a chat."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    messages: Messages | None = None
    """vLLM's. Rendered as a chat is, which adds all that the model expects."""
    tools: ChatTools | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    enable_thinking: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


async def tokenize(model: DecoderModel, request: Request) -> Response:
    """Answers the ids of a text or a chat, however many: most callers want to count them."""
    body = read_json(request.body, TokenizeCall)
    ids = await model.tokenising.run(lambda: _encode(model, body))
    return tokens_response(model, ids, body)


async def render(model: DecoderModel, request: Request) -> Response:
    """Answers the prompt of a chat with this body, as text and as ids."""
    body = read_json(request.body, chat.ChatCompletionRequest)
    text, ids = await model.tokenising.run(lambda: _rendered(model, body.conversation))
    return json_response({"prompt": text, "token_ids": ids, **size(model, ids)})


def _rendered(model: DecoderModel, conversation: Conversation) -> tuple[str, list[int]]:
    text = conversation.prompt(model)
    return text, model.reader.encode(text, param=conversation.options.field)


def _encode(model: DecoderModel, body: TokenizeCall) -> list[int]:
    """The ids of a text or a chat.

    Raises InvalidRequest unless there is one thing to encode, and as the reader does.
    """
    given = {"prompt": body.prompt, "content": body.content, "messages": body.messages}
    if sum(value is not None for value in given.values()) != 1:
        raise InvalidRequest("Send one of prompt, content and messages.", param="prompt")
    if body.messages is None:
        return encode(model, body)
    tools = tool_config(chat_tools(body.tools), ToolChoice(), None)
    options = chat_options(body)
    messages = template_messages(body.messages)
    return Conversation(messages, tools=tools, options=options).prompt_ids(model)
