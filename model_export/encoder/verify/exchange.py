"""What the exporting process and the verifying process tell each other (verify/exchange.py)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_export.recipe import EmbeddingTolerance, ScoreTolerance

PROGRAM = "model_export.encoder.verify"


class Encoded(msgspec.Struct, frozen=True):
    """A text of the corpus, or a pair, and transformers' ids and segments of it."""

    texts: tuple[str, ...]
    ids: list[int]
    type_ids: list[int]


class Answer(msgspec.Struct, frozen=True):
    """What the model says to it: an embedding or logits."""

    encoded: Encoded
    row: list[float]


class EncoderReference(msgspec.Struct, frozen=True):
    """What transformers says."""

    whole: list[Encoded]
    cut: dict[int, list[Encoded]]
    """The same texts, of so many ids at most."""
    max_tokens: int
    answers: list[Answer]
    longest: Answer
    """To a text that is as long as the model takes, or nearly so."""
    documents: int
    """Of a ranker: so many answers in a row belong to one query. 0 for all others."""


class EncoderGates(msgspec.Struct, frozen=True):
    """What the verifying process is asked."""

    reference: EncoderReference
    exact: Path
    """The fp32 artefact."""
    quantised: Path
    """The artefact that is to be shipped."""
    tolerance: EmbeddingTolerance | ScoreTolerance
    threads: int


def read_task(path: Path) -> EncoderGates:
    """What verify/exchange.py's `write` wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=EncoderGates, dec_hook=_path)


def _path(_: type, value: str) -> Path:
    return Path(value)
