"""POST /v1/embeddings, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from handlers.api.decoding import Refused, read_json
from handlers.api.encoding import fields
from handlers.api.encoding.fields import EncodingCall, encode, read_inputs, timing, usage_body
from handlers.api.encoding.vectors import cut, in_base64, in_json
from handlers.api.json_response import json_response
from handlers.api.texts_or_ids import TextsOrIds
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.encoding.model import EncoderModel
    from handlers.api.messages import Request, Response

# sentence-transformers' names for what Cohere, Voyage and NVIDIA call input_type.
PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


REFUSED: Refused = fields.REFUSED | {
    "messages": (),
    "normalize": ("true",),
    "task": (),
    "late_chunking": ("false",),
    "output_dimension": (),
    "output_dtype": ('"float"',),
    "normalized": ("true",),
    "embedding_type": ('"float"',),
    "embedding_types": ('["float"]',),
}


class EmbeddingCall(EncodingCall, frozen=True, kw_only=True):
    """The body."""

    input: TextsOrIds
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    prompt_name: str | None = None
    """sentence-transformers' and TEI's: which of the model's prompts comes before each text."""
    input_type: Literal["query", "document"] | None = None
    """Voyage's: the same by what a text is, without effect on a model that has no such prompt."""


async def create(model: EncoderModel, request: Request) -> Response:
    """A vector for each input."""
    body = read_json(request.body, EmbeddingCall, REFUSED)
    if body.dimensions and body.dimensions > model.info.dimensions:
        raise InvalidRequest(
            f"dimensions is {body.dimensions}, but {model.id} has {model.info.dimensions}.",
            param="dimensions",
        )
    prompt = prompt_of(model, body)

    def form(text: str) -> str:
        return f"{prompt}{text}".strip()  # docs/encoder.md says why

    inputs = await model.tokenising.run(lambda: read_inputs(model, body, body.input, form))
    rows, usage = await encode(model, inputs, request)
    write = in_base64 if body.encoding_format == "base64" else in_json
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(write(cut(rows, body.dimensions)))
    ]
    return json_response(
        {"object": "list", "data": data, "model": model.id, "usage": usage_body(usage)},
        timing(usage),
    )


def prompt_of(model: EncoderModel, body: EmbeddingCall) -> str:
    """What comes before each text. Raises InvalidRequest for a name that the model does not know.

    An `input_type` that the model has no prompt for asks for none, as in sentence-transformers.
    """
    prompts = model.info.prompts
    name = body.prompt_name
    if name is not None:
        if name not in prompts:
            raise InvalidRequest(
                f"prompt_name is {name!r}, but the prompts of {model.id} are: "
                f"{', '.join(prompts) or 'none'}.",
                param="prompt_name",
            )
        return prompts[name]
    if body.input_type is not None:
        known = (each for each in PROMPT_NAMES[body.input_type] if each in prompts)
        return prompts.get(next(known, ""), "")
    return prompts.get(model.info.default_prompt or "", "")
