"""POST /v1/embeddings, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from handlers.api import encoder_request
from handlers.api.encoder_request import (
    EncoderRequest,
    EncoderUsage,
    encode,
    encoder_response,
    read_inputs,
)
from handlers.api.parsing import PromptInput, read_json
from handlers.api.schemas import ResponseSchema
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel

# A decimal of as many digits gives every float32 back:
# https://en.wikipedia.org/wiki/IEEE_754#Character_representation
DIGITS = 9

KINDS: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "search_query", "retrieval_query"),
    "document": (
        "document",
        "passage",
        "corpus",
        "search_document",
        "retrieval_document",
        "retrieval_passage",
    ),
    "classification": ("classification",),
    "clustering": ("clustering",),
    "similarity": ("similarity", "semantic_similarity", "text_matching", "sts"),
}
"""Kinds of text, each with its names at Voyage, Cohere, NVIDIA, Jina, Google and in models' own
prompts. Neither case nor the sign between two words matters."""

UNSUPPORTED: UnsupportedFields = (
    encoder_request.UNSUPPORTED
    | encoder_request.CHAT_ONLY
    | {
        "normalize": ("true",),
        "normalized": ("true",),
        "embd_normalize": ("2",),
        "use_activation": ("true",),
        "late_chunking": ("false",),
        "return_multivector": ("false",),
        "output_dimension": (),
        "output_dtype": ('"float"',),
        "embedding_type": ('"float"',),
        "embedding_types": ('["float"]',),
        "embed_dtype": ('"float32"',),
        "endianness": ('"native"', '"little"'),
        "modality": ('"text"', '["text"]'),
        "images": (),
        "content": (),
        "prompt": (),
        "max_tokens": (),
    }
)


class EmbeddingRequest(EncoderRequest, frozen=True, kw_only=True):
    """Inputs to embed."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    input: PromptInput
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    prompt_name: str | None = None
    """sentence-transformers' and TEI's: which of the model's prompts comes before each text."""
    input_type: str | None = None
    """Voyage's: the same by the kind of text, without effect on a model that has no such prompt."""
    task: str | None = None
    """Jina's name for input_type, which takes precedence over it."""


class Embedding(ResponseSchema, frozen=True, kw_only=True):
    """The vector of one input: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(ResponseSchema, frozen=True, kw_only=True):
    """A vector for each input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EncoderUsage


async def create(model: EncoderModel, request: Request) -> Response:
    """Answers a vector for each input."""
    body = read_json(request.body, EmbeddingRequest)
    if body.dimensions and body.dimensions > model.info.dimensions:
        raise InvalidRequest(
            f"dimensions is {body.dimensions}, but {model.id} has {model.info.dimensions}.",
            param="dimensions",
        )
    prompt = _prompt(model, body)

    def format_text(text: str) -> str:
        return f"{prompt}{text}".strip()  # docs/encoder.md says why

    inputs = await model.tokenising.run(lambda: read_inputs(model, body, body.input, format_text))
    rows, stats = await encode(model, inputs, request)
    rows = truncated(rows, body.dimensions)
    vectors: Sequence[str | list[float]] = (
        base64_vectors(rows) if body.encoding_format == "base64" else json_vectors(rows)
    )
    embeddings = EmbeddingList(
        object="list",
        data=[
            Embedding(object="embedding", index=index, embedding=vector)
            for index, vector in enumerate(vectors)
        ],
        model=model.id,
        usage=EncoderUsage.of(stats),
    )
    return encoder_response(embeddings, stats)


def _prompt(model: EncoderModel, body: EmbeddingRequest) -> str:
    """Returns the prompt that comes before each text. Raises InvalidRequest for an unknown name.

    An `input_type` that the model has no prompt for gets none, as in sentence-transformers.
    """
    prompts = model.info.prompts
    if body.prompt_name:
        if body.prompt_name not in prompts:
            raise InvalidRequest(
                f"prompt_name is {quoted(body.prompt_name)}, but the prompts of {model.id} are: "
                f"{', '.join(prompts) or 'none'}.",
                param="prompt_name",
            )
        return prompts[body.prompt_name]
    if body.input_type:
        return _prompt_of_kind(prompts, body.input_type, "input_type")
    if body.task:
        return _prompt_of_kind(prompts, body.task, "task")
    return prompts.get(model.info.default_prompt or "", "")


def _prompt_of_kind(prompts: Mapping[str, str], kind: str, field: str) -> str:
    """Returns the prompt of a kind of text, preferably the one that has this very name."""
    name = _normalised(kind)
    names = next((names for names in KINDS.values() if name in names), None)
    if names is None:
        known = ", ".join(name for names in KINDS.values() for name in names)
        raise InvalidRequest(f"{field} is {quoted(kind)}, but known are: {known}.", param=field)
    by_name = {_normalised(own): text for own, text in prompts.items()}
    return next((by_name[each] for each in (name, *names) if each in by_name), "")


def _normalised(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def truncated(rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """Returns the first `dimensions` of each row, scaled to length 1 again; None leaves all."""
    if dimensions is None or dimensions == rows.shape[1]:
        return rows
    kept = rows[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    shortened: NDArray[np.float32] = kept / np.maximum(lengths, np.finfo(np.float32).tiny)
    return shortened


def base64_vectors(rows: NDArray[np.float32]) -> list[str]:
    """Encodes each row as little-endian float32 in base64, which OpenAI's client asks for."""
    little = np.ascontiguousarray(rows, "<f4")
    return [b2a_base64(row, newline=False).decode() for row in little]


def json_vectors(rows: NDArray[np.float32]) -> list[list[float]]:
    """Returns the numbers of each row, rounded to as many digits as float32 needs.

    Python would write all 17 of the double that a float32 becomes, and the body would be half as
    long again. A decimal of 9 digits is a whole number divided or multiplied by a power of ten,
    both of which are exact, so the result is the very double that is written like it.
    """
    exact = rows.astype(np.float64)
    magnitudes = np.floor(np.log10(np.abs(exact), where=exact != 0, out=np.zeros_like(exact)))
    scale = 10.0 ** (DIGITS - 1 - magnitudes)
    numbers: Any = (np.round(exact * scale) / scale).tolist()
    vectors: list[list[float]] = numbers
    return vectors
