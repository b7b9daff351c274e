"""POST /v1/rerank, as Cohere and Jina define it, and vLLM after them.

https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc#tag/rerank
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from handlers.api import encoder_request
from handlers.api.encoder_request import (
    EncoderRequest,
    EncoderUsage,
    check_count,
    encode,
    encoder_response,
    new_id,
)
from handlers.api.parsing import read_json
from handlers.api.schemas import ResponseSchema
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.encoder.encoder import apply_activation
from handlers.errors import InvalidRequest
from handlers.text.tokenizer import check_size, check_text

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel
    from handlers.artifact.manifest import PairPrompt
    from handlers.encoder.request import EncoderInput

UNSUPPORTED: UnsupportedFields = encoder_request.UNSUPPORTED | {
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


class RerankRequest(EncoderRequest, frozen=True, kw_only=True):
    """A query, and the documents to rank by it."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    query: Annotated[str, Meta(min_length=1)]
    documents: list[str | Document]
    top_n: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """0 gives all, as in vLLM and Infinity."""
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """Voyage's name for top_n, which takes precedence over it."""
    return_documents: bool | None = None
    instruction: str | None = None
    """vLLM's and llama-server's: tells a language model what makes a document a good answer."""
    instruct: str | None = None
    """SGLang's name for it. `instruction` takes precedence."""

    @property
    def count(self) -> int | None:
        """Returns how many results at most, None for all."""
        return self.top_n or self.top_k or None


class RankedText(ResponseSchema, frozen=True, kw_only=True):
    """A document of the request."""

    text: str


class Ranked(ResponseSchema, frozen=True, kw_only=True):
    """A document's score. `index` is the document's place in the request."""

    index: int
    relevance_score: float
    document: RankedText | UnsetType = UNSET


class RankingTokens(ResponseSchema, frozen=True, kw_only=True):
    """Cohere's count of the same tokens."""

    input_tokens: int


class RankingMeta(ResponseSchema, frozen=True, kw_only=True):
    """The counts, where Cohere's clients look for them."""

    tokens: RankingTokens


class Ranking(ResponseSchema, frozen=True, kw_only=True):
    """The documents, the best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: EncoderUsage
    meta: RankingMeta


async def create(model: EncoderModel, request: Request) -> Response:
    """Ranks documents by how well they answer the query, the best first."""
    body = read_json(request.body, RerankRequest)
    check_count(len(body.documents), "documents")
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    inputs = await model.tokenising.run(lambda: _pairs(model, body, texts))
    logits, stats = await encode(model, inputs, request)
    scores: list[float] = apply_activation(logits, model.info.activation)[:, 0].tolist()
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
    ranking = Ranking(
        id=new_id("rerank"),
        model=model.id,
        results=[
            Ranked(
                index=index,
                relevance_score=scores[index],
                document=RankedText(text=texts[index]) if body.return_documents else UNSET,
            )
            for index in ranked[: body.count]
        ],
        usage=EncoderUsage.of(stats),
        meta=RankingMeta(tokens=RankingTokens(input_tokens=stats.tokens)),
    )
    return encoder_response(ranking, stats)


def _pairs(model: EncoderModel, body: RerankRequest, texts: list[str]) -> list[EncoderInput]:
    """Builds an input of the query and each text. Raises as EncoderInputBuilder.pairs does."""
    check_size(len(body.query), "query")
    check_text(body.query, "query")
    if model.pair_prompts is not None:
        cut_to = body.cut_to(model.engine.context_length, 0)
        instruction = _instruction(body, model.pair_prompts.prompt)
        return model.pair_prompts.pairs(body.query, texts, _field, cut_to, instruction)
    _instruction(body, None)
    cut_to = body.cut_to(model.engine.context_length, model.tokenizer.special_count(2))
    return model.input_builder.pairs(body.query, texts, _field, cut_to)


def _field(index: int) -> str:
    return f"documents[{index}]"


def _instruction(body: RerankRequest, prompt: PairPrompt | None) -> str | None:
    """Returns the request's instruction. Raises InvalidRequest where the model takes none."""
    param = "instruction" if body.instruction else "instruct"
    instruction = body.instruction or body.instruct or None
    if instruction is None:
        return None
    if prompt is None or prompt.instruction is None:
        raise InvalidRequest(f"The model takes no instruction: leave {param} out.", param=param)
    check_size(len(instruction), param)
    check_text(instruction, param)
    return instruction
