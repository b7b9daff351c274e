"""The texts of gates and calibration: package data, written for this project.

A decoder reads texts, prompts and chats; an encoder passages, and pairs of a query and a document.
What weights are calibrated on shares no sentence with what the gates compare on.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
DIRECTORY = Path(__file__).parent.parent / "corpus"


class Conversation(msgspec.Struct, frozen=True):
    """A conversation, as messages that a client sends."""

    messages: list[dict[str, str]]


class Corpus(msgspec.Struct, frozen=True):
    """The texts of corpus/prompts.toml."""

    texts: list[str]
    completions: list[str]
    chats: list[Conversation]


@cache
def corpus() -> Corpus:
    """Returns texts to encode, and prompts to encode and answer."""
    return _read("prompts.toml", Corpus)


@cache
def evaluation_text() -> str:
    """Returns about 3,400 tokens of prose, dialogue, code and tables, for gate 3."""
    return (DIRECTORY / "evaluation.txt").read_text(encoding="utf-8")


class Calibration(msgspec.Struct, frozen=True):
    """The texts of corpus/calibration.toml; in both lists the kinds take turns."""

    texts: list[str]
    chats: list[Conversation]


@cache
def calibration() -> Calibration:
    """Returns about 6,500 tokens of prose, eleven other languages, code, tables and chats."""
    return _read("calibration.toml", Calibration)


def _read(name: str, kind: type[T]) -> T:
    """Reads a file of the corpus."""
    return msgspec.convert(tomllib.loads((DIRECTORY / name).read_text(encoding="utf-8")), kind)


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SHORTEST = 20
"""Characters of a sentence; what is shorter says "Oh." and proves nothing."""
QUERIES, DOCUMENTS = 8, 12


@cache
def passages() -> tuple[str, ...]:
    """Returns paragraphs and their sentences: 160 texts of 4 to 300 words."""
    paragraphs = tuple(part for part in evaluation_text().split("\n\n") if part.strip())
    return paragraphs + tuple(
        sentence
        for paragraph in paragraphs
        for sentence in _SENTENCE_END.split(paragraph)
        if len(sentence) > _SHORTEST
    )


@cache
def query_document_pairs() -> tuple[tuple[str, str], ...]:
    """Returns QUERIES times DOCUMENTS pairs, those of one query in a row."""
    paragraphs = [text for text in passages() if len(text.split()) > QUERIES][:DOCUMENTS]
    queries = [" ".join(text.split()[:QUERIES]) for text in paragraphs[:QUERIES]]
    return tuple(product(queries, paragraphs))


@cache
def texts_and_pairs() -> tuple[tuple[str, ...], ...]:
    """Returns all that only has to be encoded, the corpus's odd texts alone and in pairs too."""
    pairs = [*odd_pairs(), *query_document_pairs()]
    return (*((text,) for text in (*corpus().texts, *passages())), *pairs)


@cache
def odd_pairs() -> tuple[tuple[str, str], ...]:
    """Returns pairs of the corpus's odd texts."""
    return tuple(pairwise(corpus().texts))
