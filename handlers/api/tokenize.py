"""Text to ids and back, and a chat's prompt: what the model sees, without a word from it.

Takes and gives the fields of both vLLM and llama-server, so that a client of either works:
https://docs.vllm.ai/en/latest/serving/online_serving/openai_compatible_server/#tokenizer-api
https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-tokenize-tokenize-a-given-text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from handlers.api.answer import json_response
from handlers.api.chat import endpoint as chat
from handlers.api.chat.messages import Turn, template_messages
from handlers.api.conversation import Conversation
from handlers.api.decoding import Refused, read_json
from handlers.api.tools import ToolList, toolbox_of
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from handlers.api.messages import Request, Response
    from handlers.api.model import Model

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

REFUSED: Refused = {
    "with_pieces": ("false",),
    "parse_special": ("true",),
    "add_generation_prompt": ("true",),
    "continue_final_message": ("false",),
    "chat_template": (),
    "chat_template_kwargs": ("{}",),
}


class TokenizeCall(msgspec.Struct, frozen=True, kw_only=True):
    """The body: a text under either of its two names, or a chat."""

    prompt: str | None = None
    """vLLM's name. The special tokens that the model expects around a text are added."""
    content: str | None = None
    """llama-server's name. Nothing is added."""
    messages: Annotated[list[Turn], Meta(min_length=1)] | None = None
    """vLLM's. Rendered as a chat is, which adds all that the model expects."""
    tools: ToolList | None = None
    add_special_tokens: bool | None = None
    """vLLM's name."""
    add_special: bool | None = None
    """llama-server's name."""
    return_token_strs: bool | None = None

    @property
    def adds_special_tokens(self) -> bool:
        """What is asked for, or else the default of the server whose field holds the text."""
        given = self.add_special if self.add_special_tokens is None else self.add_special_tokens
        return self.prompt is not None if given is None else given


class DetokenizeCall(msgspec.Struct, frozen=True):
    """The body."""

    tokens: list[TokenId]


async def tokenize(model: Model, request: Request) -> Response:
    """The ids of a text, however many: counting them is what most callers want."""
    body = read_json(request.body, TokenizeCall, REFUSED)
    ids = await model.tokenising.run(lambda: _encode(model, body))
    spellings = model.tokenizer.spellings(ids) if body.return_token_strs else None
    return json_response({"tokens": ids, **_size(model, ids), "token_strs": spellings})


async def detokenize(model: Model, request: Request) -> Response:
    """The text of ids, special tokens spelt out. Raises ContextLengthExceeded."""
    ids = read_json(request.body, DetokenizeCall, {}).tokens
    context = model.engine.context_length
    if len(ids) > context:
        raise ContextLengthExceeded(
            f"There are {len(ids):,} tokens, but the context holds {context:,}: send fewer.",
            param="tokens",
        )
    for index, token_id in enumerate(ids):
        if token_id >= model.manifest.vocab_size:
            raise InvalidRequest(
                f"tokens[{index}] is {token_id}, but the vocabulary ends at "
                f"{model.manifest.vocab_size - 1}.",
                param=f"tokens[{index}]",
            )
    text = model.tokenizer.decode(ids, skip_special_tokens=False)
    return json_response({"prompt": text, "content": text})


async def render(model: Model, request: Request) -> Response:
    """The prompt that a chat with this body would give to the model, as text and as ids."""
    conversation = read_json(request.body, chat.ChatCall, chat.REFUSED).conversation
    text, ids = await model.tokenising.run(lambda: _rendered(model, conversation))
    return json_response({"prompt": text, "token_ids": ids, **_size(model, ids)})


def _size(model: Model, ids: list[int]) -> dict[str, int]:
    return {"count": len(ids), "max_model_len": model.engine.context_length}


def _rendered(model: Model, conversation: Conversation) -> tuple[str, list[int]]:
    text = conversation.prompt(model)
    return text, model.completer.encode(text, param=conversation.field)


def _encode(model: Model, body: TokenizeCall) -> list[int]:
    """Raises InvalidRequest unless there is one thing to encode, and as Completer.encode does."""
    given = {"prompt": body.prompt, "content": body.content, "messages": body.messages}
    if sum(value is not None for value in given.values()) != 1:
        raise InvalidRequest("Send one of prompt, content and messages.", param="prompt")
    if body.messages is not None:
        toolbox = toolbox_of([tool.function for tool in body.tools or ()], None, None)
        return Conversation(template_messages(body.messages), toolbox=toolbox).prompt_ids(model)
    name, text = ("content", body.content) if body.prompt is None else ("prompt", body.prompt)
    if not text:
        return []
    return model.completer.encode(text, param=name, add_special_tokens=body.adds_special_tokens)
