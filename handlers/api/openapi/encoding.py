"""What encoders answer, by their task. Imported by operations.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.api import text_tokens
from handlers.api.encoding import classify, embeddings, rerank
from handlers.api.openapi import encoding_shapes, shapes
from handlers.api.openapi.operations import OF_A_GENERATION, OF_A_READING, Operation, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.artifact.manifest import Task

TOKENIZE = Operation(
    id="tokenize",
    summary="The ids of a text.",
    call=text_tokens.TextCall,
    refused=text_tokens.UNSUPPORTED,
    answer=shapes.Tokens,
    errors=OF_A_READING,
)


def _rerank(operation_id: str) -> Operation:
    return Operation(
        id=operation_id,
        summary="Puts documents in the order in which they answer a query.",
        call=rerank.RerankCall,
        refused=rerank.UNSUPPORTED,
        answer=encoding_shapes.Ranking,
        errors=OF_A_GENERATION,
    )


OPERATIONS: Mapping[Task, Table] = {
    "feature-extraction": {
        ("/v1/embeddings", "POST"): Operation(
            id="createEmbedding",
            summary="A vector for each input.",
            call=embeddings.EmbeddingCall,
            refused=embeddings.UNSUPPORTED,
            answer=encoding_shapes.EmbeddingList,
            errors=OF_A_GENERATION,
        ),
        ("/tokenize", "POST"): TOKENIZE,
    },
    "text-classification": {
        ("/v1/classify", "POST"): Operation(
            id="createClassification",
            summary="The likeliest label of each input, and how likely each label is.",
            call=classify.ClassifyCall,
            refused=classify.UNSUPPORTED,
            answer=encoding_shapes.Classification,
            errors=OF_A_GENERATION,
        ),
        ("/tokenize", "POST"): TOKENIZE,
    },
    "text-ranking": {
        ("/v1/rerank", "POST"): _rerank("createRerank"),
        ("/v2/rerank", "POST"): _rerank("createRerankV2"),
        ("/rerank", "POST"): _rerank("rerank"),
        ("/tokenize", "POST"): TOKENIZE,
    },
}
