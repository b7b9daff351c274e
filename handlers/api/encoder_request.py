"""The fields, the tokenising and the usage that all endpoints of encoders share.

docs/api.md has tables of the fields; a test compares them with these structs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from handlers.api.http import TokenUsage, json_response, server_timing
from handlers.api.parsing import RequestBody, as_list
from handlers.api.schemas import ResponseSchema
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel
    from handlers.api.parsing import PromptInput
    from handlers.api.unsupported_fields import UnsupportedFields
    from handlers.encoder.request import EncoderInput, EncodeStats
    from handlers.text.encoder_inputs import FieldOf

# OpenAI's, and Jina's for documents.
MAX_INPUTS = 2048


UNSUPPORTED: UnsupportedFields = {
    "add_special_tokens": ("true",),
    "truncation_direction": ('"Right"', '"right"'),
    "truncation_side": ('"right"',),
    "padding": ('"do_not_pad"',),
    "options": (),
    "texts": (),
    "inputs": (),
    "chat_template": (),
    "chat_template_kwargs": (),
}
"""The fields that every endpoint of encoders refuses, since each would change the answer."""

CHAT_ONLY: UnsupportedFields = {
    "messages": (),
    "add_generation_prompt": ("false",),
    "continue_final_message": ("false",),
}
"""vLLM's fields for an input that is a chat. Refused where an input is embedded or classified."""


class EncoderRequest(RequestBody, frozen=True, kw_only=True):
    """The fields of every request to an encoder. `null` and absent mean the default."""

    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    truncate: bool | Literal["NONE", "END"] | None = None
    """TEI's name: leaves out the end of what is too long. Cohere and NVIDIA say "END"."""
    truncation: bool | None = None
    """Voyage's name for the same."""
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """vLLM's name: leaves out what follows this many tokens; -1 is as many as the model takes."""

    def cut_to(self, max_tokens: int, added: int) -> int | None:
        """Returns how many tokens of an input are kept, None where a longer one is refused.

        `added`: the special tokens among them. Raises InvalidRequest for a limit that leaves no
        others.
        """
        wanted = self.truncate_prompt_tokens
        if wanted is None:
            return max_tokens if self.truncation or self.truncate in (True, "END") else None
        if wanted == -1:
            return max_tokens
        if wanted <= added:
            raise InvalidRequest(
                f"truncate_prompt_tokens is {wanted}, which leaves nothing of an input, since "
                f"{added} tokens are special ones: send at least {added + 1}, or -1.",
                param="truncate_prompt_tokens",
            )
        return min(wanted, max_tokens)


class EncoderUsage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of all inputs, special tokens included."""

    prompt_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, stats: EncodeStats) -> EncoderUsage:
        """Returns the counts as OpenAI has them."""
        return cls(prompt_tokens=stats.tokens, total_tokens=stats.tokens)


def read_inputs(
    model: EncoderModel,
    body: EncoderRequest,
    value: PromptInput,
    format_text: Callable[[str], str] = str,
) -> list[EncoderInput]:
    """Tokenises the field `input`. Raises InvalidRequest.

    `format_text`: gives a text the form that the model was trained on.
    """
    parts = as_list(value, "input")
    alone = isinstance(value, str) or not value or isinstance(value[0], int)
    check_count(len(parts), "input")

    def field(index: int) -> str:
        return "input" if alone else f"input[{index}]"

    for index, part in enumerate(parts):
        if not part:
            raise InvalidRequest(
                f"{field(index)} is empty: send some text, or leave it out.", param=field(index)
            )
    longest = model.engine.context_length
    texts = [format_text(part) for part in parts if isinstance(part, str)]
    if texts:
        return model.input_builder.texts(
            texts, field, body.cut_to(longest, model.tokenizer.special_count(1))
        )
    lists = [part for part in parts if isinstance(part, list)]
    _check_ids(lists, model.manifest.vocab_size, field)
    return model.input_builder.ids(lists, field, body.cut_to(longest, 0))


def check_count(count: int, field: str) -> None:
    """Raises InvalidRequest for no inputs, and for more than a request may have."""
    if not count:
        raise InvalidRequest(f"{field} is empty: send at least one.", param=field)
    if count > MAX_INPUTS:
        raise InvalidRequest(
            f"{field} has {count:,} entries, which are over the limit of {MAX_INPUTS:,}: send them "
            f"in several requests.",
            param=field,
        )


async def encode(
    model: EncoderModel, inputs: list[EncoderInput], request: Request
) -> tuple[NDArray[np.float32], EncodeStats]:
    """Computes a row [width] for each input. Raises what the encoder raises."""
    encoding = model.engine.submit(inputs, request.deadline)
    return await encoding.rows(), encoding.stats()


def encoder_response(body: ResponseSchema, stats: EncodeStats) -> Response:
    """Returns a response of status 200 whose Server-Timing says how long it took."""
    timing = server_timing(queue=stats.queue_ms, encode=stats.encode_ms)
    return json_response(body, timing, TokenUsage(stats.tokens))


def new_id(kind: str) -> str:
    """Returns a random id such as `rerank-<hex>`."""
    return f"{kind}-{os.urandom(16).hex()}"


def _check_ids(lists: list[list[int]], vocab_size: int, field: FieldOf) -> None:
    for index, ids in enumerate(lists):
        largest = max(ids)
        if largest >= vocab_size:
            raise InvalidRequest(
                f"{field(index)} has the token id {largest} at place {ids.index(largest)}, outside "
                f"0 to {vocab_size - 1}. Ids are those of this model's tokenizer: send texts. "
                f"LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False.",
                param=field(index),
            )
