"""POST /tokenize, POST /detokenize and GET /tokenizer_info, for texts and any task.

Requests and answers have the fields of vLLM and of llama-server, so a client of either works:
https://docs.vllm.ai/en/latest/serving/online_serving/openai_compatible_server/#tokenizer-api
https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-tokenize-tokenize-a-given-text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec

from handlers.api.http import json_response
from handlers.api.parsing import RequestBody, TokenId, read_json
from handlers.api.schemas import ResponseSchema
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import ServedModel

# Clients may read these whether the model has them or not.
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")

UNSUPPORTED: UnsupportedFields = {"with_pieces": ("false",), "parse_special": ("true",)}
CHAT_ONLY: UnsupportedFields = {"messages": (), "tools": ()}


class TokenizeTextRequest(RequestBody, frozen=True, kw_only=True):
    """A text under either of its two names."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED | CHAT_ONLY
    prompt: str | None = None
    """vLLM's name. The special tokens that the model expects around a text are added."""
    content: str | None = None
    """llama-server's name. Nothing is added."""
    add_special_tokens: bool | None = None
    """vLLM's name."""
    add_special: bool | None = None
    """llama-server's name."""
    return_token_strs: bool | None = None

    @property
    def adds_special_tokens(self) -> bool:
        """Returns whether to add special tokens: as asked, or by default of the text's field."""
        given = self.add_special if self.add_special_tokens is None else self.add_special_tokens
        return self.prompt is not None if given is None else given


class DetokenizeRequest(RequestBody, frozen=True):
    """The ids of a text."""

    tokens: list[TokenId]


class Tokens(ResponseSchema, frozen=True, kw_only=True):
    """The ids of a text."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str | None] | None


class DetokenizedText(ResponseSchema, frozen=True, kw_only=True):
    """The text of ids, twice."""

    prompt: str
    content: str


class TokenizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The tokenizer. A model may have more special tokens than these, such as cls_token."""

    tokenizer_class: Literal["PreTrainedTokenizerFast"]
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    model_max_length: int
    chat_template: str | None


async def tokenize(model: ServedModel, request: Request) -> Response:
    """Answers the ids of a text, however many: most callers want to count them."""
    body = read_json(request.body, TokenizeTextRequest)
    if (body.prompt is None) == (body.content is None):
        raise InvalidRequest("Send one of prompt and content.", param="prompt")
    ids = await model.tokenising.run(lambda: encode_text(model, body))
    return tokens_response(model, ids, body)


async def detokenize(model: ServedModel, request: Request) -> Response:
    """Answers the text of ids, special tokens included. Raises ContextLengthExceeded."""
    ids = read_json(request.body, DetokenizeRequest).tokens
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
    return json_response(DetokenizedText(prompt=text, content=text))


async def tokenizer_info(model: ServedModel, _request: Request) -> Response:
    """Answers transformers' tokenizer_config.json, which evaluation tools ask vLLM for.

    A dict in place of a TokenizerInfo: a model's special tokens may have any names.
    https://github.com/EleutherAI/lm-evaluation-harness/blob/4e7e0d4/lm_eval/utils.py
    """
    return json_response(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",  # which reads any tokenizer.json
            **dict.fromkeys(SPECIAL_TOKENS),
            **model.manifest.special_tokens,
            "model_max_length": model.engine.context_length,
            "chat_template": model.chat_template,
        }
    )


def encode_text(model: ServedModel, body: TokenizeTextRequest) -> list[int]:
    """Returns the ids of the one text that `body` has. Raises as the reader does."""
    name, text = ("content", body.content) if body.prompt is None else ("prompt", body.prompt)
    if not text:
        return []
    return model.prompt_encoder.encode(
        text, param=name, add_special_tokens=body.adds_special_tokens
    )


def tokens_response(model: ServedModel, ids: list[int], body: TokenizeTextRequest) -> Response:
    """Answers ids as vLLM does."""
    return json_response(
        Tokens(
            tokens=ids,
            count=len(ids),
            max_model_len=model.engine.context_length,
            token_strs=model.tokenizer.token_strings(ids) if body.return_token_strs else None,
        )
    )
