"""The shipped text as an encoder reads it: passages, and pairs of a query and a document."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise, product

from model_export.verify.corpus import corpus, evaluation_text

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SHORTEST = 20
"""Characters of a sentence; what is shorter says "Oh." and proves nothing."""
QUERIES, DOCUMENTS = 8, 12


@cache
def passages() -> tuple[str, ...]:
    """Paragraphs and their sentences: 160 texts of 4 to 300 words."""
    paragraphs = tuple(part for part in evaluation_text().split("\n\n") if part.strip())
    return paragraphs + tuple(
        sentence
        for paragraph in paragraphs
        for sentence in _SENTENCE_END.split(paragraph)
        if len(sentence) > _SHORTEST
    )


@cache
def query_document_pairs() -> tuple[tuple[str, str], ...]:
    """QUERIES times DOCUMENTS pairs, those of one query in a row."""
    paragraphs = [text for text in passages() if len(text.split()) > QUERIES][:DOCUMENTS]
    queries = [" ".join(text.split()[:QUERIES]) for text in paragraphs[:QUERIES]]
    return tuple(product(queries, paragraphs))


@cache
def texts_and_pairs() -> tuple[tuple[str, ...], ...]:
    """All that only has to be encoded; the corpus's odd texts among it, alone and in pairs."""
    odd = corpus().texts
    pairs = [*pairwise(odd), *query_document_pairs()]
    return (*((text,) for text in (*odd, *passages())), *pairs)
