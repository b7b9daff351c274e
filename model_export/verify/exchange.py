"""The messages between the exporting and the verifying process, as msgpack files.

A request goes in, an outcome comes back. Neither process imports what the other one needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import msgspec

from handlers.artifact.manifest import PrefixInfo
from model_export.recipe import (
    DecoderTolerance,
    DraftTable,
    EmbeddingTolerance,
    ScoreTolerance,
)

REQUEST = "request.msgpack"
OUTCOME = "outcome.msgpack"


class Encoder(Protocol):
    """A tokenizer: the runtime's or transformers'."""

    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]:
        """Returns the ids of a text."""


class EncodedText(msgspec.Struct, frozen=True):
    """A text of the corpus and a tokenizer's ids of it."""

    text: str
    ids: list[int]
    ids_with_special_tokens: list[int]

    @classmethod
    def of(cls, text: str, tokenizer: Encoder) -> EncodedText:
        """Encodes a text in both ways."""
        plain, marked = (
            tokenizer.encode(text, add_special_tokens=given) for given in (False, True)
        )
        return cls(text=text, ids=plain, ids_with_special_tokens=marked)


class RenderedChat(msgspec.Struct, frozen=True):
    """A conversation of the corpus, rendered and encoded by transformers."""

    messages: list[dict[str, str]]
    rendered: str
    ids: list[int]


class RefusedChat(msgspec.Struct, frozen=True):
    """A conversation of the corpus that the model's template refuses, and its words."""

    messages: list[dict[str, str]]
    reason: str


class Prompt(msgspec.Struct, frozen=True):
    """A prompt of the corpus and its ids."""

    text: str
    ids: list[int]


class GreedyAnswer(msgspec.Struct, frozen=True):
    """transformers' greedy answer to one prompt."""

    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    """Without the end-of-sequence id, if it ended with one."""
    margins: list[float]
    """Distance of the two largest logits at every step, the step of an end of sequence included."""
    ended: bool
    """Whether an end-of-sequence id came before the limit."""


class CutReference(msgspec.Struct, frozen=True):
    """transformers' answers with a model cut to some of its layers and rows (decoder/cut.py)."""

    layers: list[int]
    """The numbers of its layers in the whole model."""
    vocabulary: list[int]
    """The ids of its rows in the whole model. All other ids here are numbers of its rows."""
    answers: list[GreedyAnswer]
    answer_tokens: int
    """The limit of every answer's length."""
    eos_token_ids: list[int]
    logits: Path
    """float32 [tokens of the last prompt, rows]."""


class DecoderReference(msgspec.Struct, frozen=True):
    """transformers' ids, answers and logits, which a decoder's export has to reproduce."""

    texts: list[EncodedText]
    chats: list[RenderedChat]
    """Empty for a model without a chat template."""
    refusals: list[RefusedChat]
    first_prompt: Prompt
    cut: CutReference
    windows: list[list[int]]
    """The evaluation text's ids, each with what the tokenizer puts before a text."""
    logits: Path
    """float32 [tokens of all windows, then of `choosing`, vocabulary] of the whole model."""
    vocabulary: int
    choosing: list[list[int]] = []
    """The other half of the text, where the export chooses a precision by it."""


class EncodedInput(msgspec.Struct, frozen=True):
    """A text of the corpus, or a pair, and transformers' ids and segments of it."""

    texts: tuple[str, ...]
    ids: list[int]
    type_ids: list[int]


class OutputRow(msgspec.Struct, frozen=True):
    """An input, and transformers' embedding or logits of it."""

    encoded: EncodedInput
    row: list[float]


class EncoderReference(msgspec.Struct, frozen=True):
    """transformers' ids and rows, which an encoder's export has to reproduce."""

    whole: list[EncodedInput]
    cut: dict[int, list[EncodedInput]]
    """The same texts, of so many ids at most."""
    max_tokens: int
    answers: list[OutputRow]
    longest: OutputRow
    """Of a text that is as long as the model takes, or nearly so."""
    documents: int
    """Of a ranker: so many answers in a row belong to one query. 0 for all others."""


class DecoderGates(msgspec.Struct, frozen=True, tag="decoder"):
    """The gates that a decoder's artefact has to pass."""

    reference: DecoderReference
    tolerance: DecoderTolerance
    system_prompt: str | None = None
    """Baked into the artefact once it has passed."""
    draft: DraftTable | None = None
    """Of a draft model, whose graph lies in the artefact."""


class EncoderGates(msgspec.Struct, frozen=True, tag="encoder"):
    """The gates that an encoder's artefact has to pass."""

    reference: EncoderReference
    tolerance: EmbeddingTolerance | ScoreTolerance


class DriftRequest(msgspec.Struct, frozen=True, tag="drift"):
    """A request to measure how far a quantised graph drifts, on the text for choosing by."""

    graph: Path
    windows: list[list[int]]
    logits: Path
    skipped: int
    """Rows of the logits that are of other windows, before those of these."""
    vocabulary: int
    threads: int


class VerifyRequest(msgspec.Struct, frozen=True, tag="gates"):
    """A request to verify two artefacts of one model."""

    gates: DecoderGates | EncoderGates
    fp32: Path
    """The graph in fp32: an encoder's artefact, or a decoder's graph cut to some of its layers."""
    quantised: Path
    """The artefact that is to be shipped."""
    threads: int
    step_cost: float | None = None
    """The time of a step of its draft model, in calls of the model; None where it has none."""


class MeasuredDraft(msgspec.Struct, frozen=True):
    """The figures of a draft model, as DraftInfo has them."""

    acceptance: float
    measured: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True):
    """The figures of the gates or of a drift, or the sentence of the gate that failed."""

    figures: dict[str, Any]
    failure: str | None
    prefix: PrefixInfo | None = None
    """What was baked."""
    draft: MeasuredDraft | None = None
    """None without a draft model."""


def write(path: Path, message: msgspec.Struct) -> None:
    """Writes one message as one file."""
    path.write_bytes(msgspec.msgpack.encode(message, enc_hook=str))


def read_request(path: Path) -> VerifyRequest | DriftRequest:
    """Reads a request that `write` wrote."""
    return msgspec.msgpack.decode(
        path.read_bytes(), type=VerifyRequest | DriftRequest, dec_hook=_path
    )


def read_gates(path: Path) -> DecoderGates | EncoderGates:
    """Reads gates that `write` wrote."""
    return msgspec.msgpack.decode(
        path.read_bytes(), type=DecoderGates | EncoderGates, dec_hook=_path
    )


def read_outcome(path: Path) -> Outcome:
    """Reads an outcome that `write` wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Outcome)


def _path(_: type, value: str) -> Path:
    return Path(value)
