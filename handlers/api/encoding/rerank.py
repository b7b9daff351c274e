"""POST /v1/rerank, as Cohere and Jina define it, and vLLM after them.

https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc#tag/rerank
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from msgspec import Meta

from handlers.api.encoding import fields
from handlers.api.encoding.fields import (
    EncodingCall,
    check_count,
    encode,
    new_id,
    timing,
    usage_body,
)
from handlers.api.http import TokenUsage, json_response
from handlers.api.parsing import read_json
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.encoder.encoder import apply_activation
from handlers.text.prompts import check_size, check_text

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel
    from handlers.encoder.request import EncoderInput


UNSUPPORTED: UnsupportedFields = fields.UNSUPPORTED | {
    "raw_scores": ("false",),
    "use_activation": ("true",),
    "rank_fields": ('["text"]',),
    "max_tokens_per_doc": (),
    "max_chunks_per_doc": (),
    "max_doc_length": (),
    "return_text": ("false",),
    "return_embeddings": ("false",),
}


class Document(msgspec.Struct, frozen=True):
    """Jina's and Cohere's older form of a document."""

    text: str


class RerankCall(EncodingCall, frozen=True, kw_only=True):
    """The body."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    query: Annotated[str, Meta(min_length=1)]
    documents: list[str | Document]
    top_n: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """0 gives all, as in vLLM and Infinity."""
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """Voyage's name for top_n, which goes before it."""
    return_documents: bool | None = None

    @property
    def count(self) -> int | None:
        """How many results at most, None for all."""
        return self.top_n or self.top_k or None


async def create(model: EncoderModel, request: Request) -> Response:
    """Ranks documents by how well they answer the query, the best first."""
    body = read_json(request.body, RerankCall)
    check_count(len(body.documents), "documents")
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    inputs = await model.tokenising.run(lambda: _pairs(model, body, texts))
    logits, usage = await encode(model, inputs, request)
    scores: list[float] = apply_activation(logits, model.info.activation)[:, 0].tolist()
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
    results: list[dict[str, object]] = [
        {"index": index, "relevance_score": scores[index]} for index in ranked[: body.count]
    ]
    if body.return_documents:
        for result, index in zip(results, ranked, strict=False):
            result["document"] = {"text": texts[index]}
    return json_response(
        {
            "id": new_id("rerank"),
            "model": model.id,
            "results": results,
            "usage": usage_body(usage),
            "meta": {"tokens": {"input_tokens": usage.tokens}},
        },
        timing(usage),
        TokenUsage(usage.tokens),
    )


def _pairs(model: EncoderModel, body: RerankCall, texts: list[str]) -> list[EncoderInput]:
    check_size(len(body.query), "query")
    check_text(body.query, "query")
    cut_to = body.cut_to(model.engine.context_length, model.tokenizer.special_count(2))
    return model.inputs.pairs(body.query, texts, lambda index: f"documents[{index}]", cut_to)
