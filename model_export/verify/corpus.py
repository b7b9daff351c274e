"""The texts that the gates compare on: package data, written for this project."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import msgspec

DIRECTORY = Path(__file__).parent.parent / "corpus"


class Conversation(msgspec.Struct, frozen=True):
    """Messages as a client sends them."""

    messages: list[dict[str, str]]


class Corpus(msgspec.Struct, frozen=True):
    """corpus/prompts.toml."""

    texts: list[str]
    completions: list[str]
    chats: list[Conversation]


@cache
def corpus() -> Corpus:
    """Texts to encode, and prompts to encode and answer."""
    document = tomllib.loads((DIRECTORY / "prompts.toml").read_text(encoding="utf-8"))
    return msgspec.convert(document, Corpus)


@cache
def evaluation_text() -> str:
    """About 3,400 tokens of prose, dialogue, code and tables, for gate 3."""
    return (DIRECTORY / "evaluation.txt").read_text(encoding="utf-8")
