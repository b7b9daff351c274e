"""The answers of encoders as structs."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from handlers.api.schemas import Shape


class EncodingUsage(Shape, frozen=True, kw_only=True):
    """Tokens of all inputs, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Shape, frozen=True, kw_only=True):
    """Of one input: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(Shape, frozen=True, kw_only=True):
    """A vector for each input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EncodingUsage


class LabelScores(Shape, frozen=True, kw_only=True):
    """Of one input: the likeliest label, and all scores in the order of the labels."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Classification(Shape, frozen=True, kw_only=True):
    """Scores for each input. `labels` names them."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[LabelScores]
    labels: list[str]
    usage: EncodingUsage


class RankedText(Shape, frozen=True, kw_only=True):
    """A document of the request."""

    text: str


class Ranked(Shape, frozen=True, kw_only=True):
    """`index` is the document's place in the request."""

    index: int
    relevance_score: float
    document: RankedText | UnsetType = UNSET


class InputTokens(Shape, frozen=True, kw_only=True):
    """Cohere's count of the same tokens."""

    input_tokens: int


class RankingMeta(Shape, frozen=True, kw_only=True):
    """Where Cohere's clients look for it."""

    tokens: InputTokens


class Ranking(Shape, frozen=True, kw_only=True):
    """The documents, the best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: EncodingUsage
    meta: RankingMeta
