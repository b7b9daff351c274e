"""What the endpoints of encoders share: fields, the reading of texts, the answer's usage.

docs/api.md has the tables; a test holds them to these structs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from handlers.api.parsing import RequestBody, as_list
from handlers.api.usage import timing_header
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from handlers.api.http import Request
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
}
"""Each would change the answer, so it is not ignored. With it, the JSON that asks for nothing."""

OF_CHATS: UnsupportedFields = {
    "messages": (),
    "add_generation_prompt": ("false",),
    "continue_final_message": ("false",),
    "chat_template": (),
    "chat_template_kwargs": (),
}
"""vLLM's fields for an input that is a chat. Refused where an input is embedded or classified."""


class EncodingCall(RequestBody, frozen=True, kw_only=True):
    """`null` and absent mean the default."""

    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    truncate: bool | Literal["NONE", "END"] | None = None
    """TEI's name: leaves out the end of what is too long. Cohere and NVIDIA say "END"."""
    truncation: bool | None = None
    """Voyage's name for the same."""
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """vLLM's name: leaves out what is behind this many tokens; -1 is what the model takes."""

    def cut_to(self, max_tokens: int, added: int) -> int | None:
        """How many tokens of an input are kept, None where a longer one is refused.

        `added`: those of them that are not the input's own. Raises InvalidRequest for a limit that
        leaves no others.
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


def read_inputs(
    model: EncoderModel,
    call: EncodingCall,
    value: PromptInput,
    form: Callable[[str], str] = str,
) -> list[EncoderInput]:
    """Reads the field `input`. Raises InvalidRequest.

    `form`: gives a text the form that the model was trained on.
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
    texts = [form(part) for part in parts if isinstance(part, str)]
    if texts:
        return model.inputs.texts(
            texts, field, call.cut_to(longest, model.tokenizer.special_count(1))
        )
    lists = [part for part in parts if isinstance(part, list)]
    _check_ids(lists, model.manifest.vocab_size, field)
    return model.inputs.ids(lists, field, call.cut_to(longest, 0))


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
    """Computes a row for each input. Raises what the encoder raises."""
    encoding = model.engine.submit(inputs, request.deadline)
    return await encoding.rows(), encoding.stats()


def usage_body(usage: EncodeStats) -> dict[str, int]:
    """Counts the tokens of an embedding as OpenAI does."""
    return {"prompt_tokens": usage.tokens, "total_tokens": usage.tokens}


def new_id(kind: str) -> str:
    """Makes the id of an answer."""
    return f"{kind}-{os.urandom(16).hex()}"


def timing(usage: EncodeStats) -> dict[str, str]:
    """Makes the header Server-Timing."""
    return timing_header(queue=usage.queue_ms, encode=usage.encode_ms)


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
