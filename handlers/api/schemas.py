"""The structs of answers that stand in no endpoint's file. They make the OpenAPI document, too."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType


class ResponseSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object of an answer: it has these members and no others, and leaves UNSET ones out."""

    parts: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    """The structs that its schema refers to by their names alone."""


class Tokens(ResponseSchema, frozen=True, kw_only=True):
    """The ids of a text."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str | None] | None


class Prompt(ResponseSchema, frozen=True, kw_only=True):
    """What a model sees of a chat."""

    prompt: str
    token_ids: list[int]
    count: int
    max_model_len: int


class Text(ResponseSchema, frozen=True, kw_only=True):
    """The text of ids, twice."""

    prompt: str
    content: str


class TokenizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What reads texts. A model may have more special tokens than these, such as cls_token."""

    tokenizer_class: Literal["PreTrainedTokenizerFast"]
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    model_max_length: int
    chat_template: str | None


class ModelCard(ResponseSchema, frozen=True, kw_only=True):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int


class ModelList(ResponseSchema, frozen=True, kw_only=True):
    """One model."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(ResponseSchema, frozen=True, kw_only=True):
    """What runs and how busy it is."""

    state: Literal["ready", "draining"]
    version: str
    """Of Kindling."""
    model: str
    task: str
    precision: str
    context_length: int
    slots: int | UnsetType = UNSET
    sampling_defaults: dict[str, float] | UnsetType = UNSET
    """Of a request that says nothing of them."""
    running: int
    waiting: int
    load_ms: dict[str, float]
    uptime_seconds: float


class ErrorDetail(ResponseSchema, frozen=True, kw_only=True):
    """`param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Error(ResponseSchema, frozen=True, kw_only=True):
    """Every error's body."""

    error: ErrorDetail
