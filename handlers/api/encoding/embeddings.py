"""POST /v1/embeddings, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from handlers.api.encoding import fields
from handlers.api.encoding.fields import EncodingCall, encode, read_inputs, timing, usage_body
from handlers.api.encoding.vectors import cut, in_base64, in_json
from handlers.api.http import TokenUsage, json_response
from handlers.api.parsing import PromptInput, read_json
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel

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
"""What a text is, and what it is called by Voyage, Cohere, NVIDIA, Jina, Google and by the models'
own prompts. Neither case nor the sign between two words matters."""

UNSUPPORTED: UnsupportedFields = (
    fields.UNSUPPORTED
    | fields.OF_CHATS
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


class EmbeddingCall(EncodingCall, frozen=True, kw_only=True):
    """The body."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    input: PromptInput
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    prompt_name: str | None = None
    """sentence-transformers' and TEI's: which of the model's prompts comes before each text."""
    input_type: str | None = None
    """Voyage's: the same by what a text is, without effect on a model that has no such prompt."""
    task: str | None = None
    """Jina's name for input_type, which goes before it."""


async def create(model: EncoderModel, request: Request) -> Response:
    """A vector for each input."""
    body = read_json(request.body, EmbeddingCall)
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
        TokenUsage(usage.tokens),
    )


def prompt_of(model: EncoderModel, body: EmbeddingCall) -> str:
    """What comes before each text. Raises InvalidRequest for a name that is not known.

    An `input_type` that the model has no prompt for asks for none, as in sentence-transformers.
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


def _prompt_of_kind(prompts: Mapping[str, str], asked: str, field: str) -> str:
    """The prompt of a kind: of all that fit, the one that is called as asked goes first."""
    name = _plain(asked)
    names = next((names for names in KINDS.values() if name in names), None)
    if names is None:
        known = ", ".join(name for names in KINDS.values() for name in names)
        raise InvalidRequest(f"{field} is {quoted(asked)}, but known are: {known}.", param=field)
    by_name = {_plain(own): text for own, text in prompts.items()}
    return next((by_name[each] for each in (name, *names) if each in by_name), "")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
