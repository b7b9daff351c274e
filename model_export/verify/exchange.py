"""What the exporting process and the verifying process tell each other, as msgpack files.

A task goes in, an outcome comes back. Neither process imports what the other one needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from handlers.artifact.manifest import PrefixInfo
from model_export.recipe import DecoderTolerance

TASK = "task.msgpack"
OUTCOME = "outcome.msgpack"


class Encoded(msgspec.Struct, frozen=True):
    """A text of the corpus and transformers' ids of it."""

    text: str
    ids: list[int]
    ids_with_special_tokens: list[int]


class Chat(msgspec.Struct, frozen=True):
    """A conversation of the corpus, rendered and encoded by transformers."""

    messages: list[dict[str, str]]
    rendered: str
    ids: list[int]


class Refusal(msgspec.Struct, frozen=True):
    """A conversation of the corpus that the model's template refuses, and its words."""

    messages: list[dict[str, str]]
    reason: str


class Answer(msgspec.Struct, frozen=True):
    """transformers' greedy answer to one prompt."""

    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    """Without the end-of-sequence id, if it ended with one."""
    margins: list[float]
    """Distance of the two largest logits at every step, the step of an end of sequence included."""
    ended: bool
    """Whether an end-of-sequence id came before the limit."""


class Reference(msgspec.Struct, frozen=True):
    """What transformers says."""

    texts: list[Encoded]
    chats: list[Chat]
    """Empty for a model without a chat template."""
    refusals: list[Refusal]
    answers: list[Answer]
    answer_tokens: int
    """The limit of every answer's length."""


class Task(msgspec.Struct, frozen=True):
    """What the verifying process is asked."""

    reference: Reference
    exact: Path
    """The fp32 artefact."""
    quantised: Path
    """The artefact that is to be shipped."""
    tolerance: DecoderTolerance
    threads: int
    system_prompt: str | None = None
    """What is to be baked into it, once it has passed."""


class Outcome(msgspec.Struct, frozen=True):
    """What it found: the gates' figures, or the sentence of the gate that failed."""

    figures: dict[str, Any]
    failure: str | None
    prefix: PrefixInfo | None = None
    """What was baked."""


def write(path: Path, message: msgspec.Struct) -> None:
    """One message as one file."""
    path.write_bytes(msgspec.msgpack.encode(message, enc_hook=str))


def read_task(path: Path) -> Task:
    """The other side of `write`."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Task, dec_hook=_path)


def read_outcome(path: Path) -> Outcome:
    """The other side of `write`."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Outcome)


def _path(_: type, value: str) -> Path:
    return Path(value)
