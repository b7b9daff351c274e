"""A text to ids and back, and what reads it, whatever the model's task.

Takes and gives the fields of both vLLM and llama-server, so that a client of either works:
https://docs.vllm.ai/en/latest/serving/online_serving/openai_compatible_server/#tokenizer-api
https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-tokenize-tokenize-a-given-text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from handlers.api.http import json_response
from handlers.api.parsing import RequestBody, TokenId, read_json
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import ServedModel

# Those that a client may ask for whether the model has them or not.
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")

OF_TEXTS: UnsupportedFields = {"with_pieces": ("false",), "parse_special": ("true",)}

UNSUPPORTED: UnsupportedFields = OF_TEXTS | {"messages": (), "tools": ()}
"""Those of texts, and what only a model with chats has."""


class TextCall(RequestBody, frozen=True, kw_only=True):
    """The body: a text under either of its two names."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
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
        """Whether to add special tokens: as asked, or by the default of the text's field."""
        given = self.add_special if self.add_special_tokens is None else self.add_special_tokens
        return self.prompt is not None if given is None else given


class DetokenizeCall(RequestBody, frozen=True):
    """The body."""

    tokens: list[TokenId]


async def tokenize(model: ServedModel, request: Request) -> Response:
    """Answers the ids of a text, however many: counting them is what most callers want."""
    body = read_json(request.body, TextCall)
    if (body.prompt is None) == (body.content is None):
        raise InvalidRequest("Send one of prompt and content.", param="prompt")
    ids = await model.tokenising.run(lambda: encode(model, body))
    return tokens_response(model, ids, body)


async def detokenize(model: ServedModel, request: Request) -> Response:
    """Answers the text of ids, special tokens spelt out. Raises ContextLengthExceeded."""
    ids = read_json(request.body, DetokenizeCall).tokens
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


async def tokenizer_info(model: ServedModel, _request: Request) -> Response:
    """Tells evaluation tools how texts are read here, in vLLM's form.

    transformers' tokenizer_config.json, whose other members no artefact keeps.
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


def encode(model: ServedModel, body: TextCall) -> list[int]:
    """The ids of the one text that `body` has. Raises as the reader does."""
    name, text = ("content", body.content) if body.prompt is None else ("prompt", body.prompt)
    if not text:
        return []
    return model.reader.encode(text, param=name, add_special_tokens=body.adds_special_tokens)


def tokens_response(model: ServedModel, ids: list[int], body: TextCall) -> Response:
    """Answers ids as vLLM does."""
    spellings = model.tokenizer.token_strings(ids) if body.return_token_strs else None
    return json_response({"tokens": ids, **size(model, ids), "token_strs": spellings})


def size(model: ServedModel, ids: list[int]) -> dict[str, int]:
    """The members that stand beside all ids: how many they are, and how many may be."""
    return {"count": len(ids), "max_model_len": model.engine.context_length}
